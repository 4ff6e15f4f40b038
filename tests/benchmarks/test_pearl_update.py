"""Milliseconds of a PEARL update, and the same update task by task, as a plain program would write it.

Run with `pytest tests/benchmarks`. Times are processor time of one thread, so that other programs beside it change little. At the
paper's sizes (16 tasks of 256 transitions, contexts of 100, latent size 5, 3 x 300 networks) one core is busy with products of
matrices either way; at those of budget quick (8 tasks of 32, 3 x 128) the loop's overhead shows.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch.nn import functional

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.pearl import PearlAgent
from dmrlad_bench.agents.task_batches import TaskBatches
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import ActorCritic, Exploration, Inference, Pearl, Relabel, Schedule

TASKS, TRIALS, HORIZON, OBSERVATION, ACTION = 40, 160, 200, 17, 6


SIZES = {
    "paper": (ActorCritic(critic="scalar"), Pearl()),
    "quick": (
        ActorCritic(critic="scalar", hidden=(128, 128, 128), batch_size=32),
        Pearl(encoder_hidden=(96, 96), context_batch=64, meta_batch=8),
    ),
}


def agent_of(actor_critic: ActorCritic, pearl: Pearl) -> PearlAgent:
    config = AgentConfig(
        name="pearl",
        description="",
        algorithm="pearl",
        inference=Inference(kind="none"),
        actor_critic=actor_critic,
        relabel=Relabel(kind="none"),
        exploration=Exploration(initial="policy"),
        schedule=Schedule(policy_updates=0, reconstruction_updates=0, replay_trials=TRIALS),
        pearl=pearl,
    )
    tasks = np.linspace(0, 3, TASKS)[:, None]
    problem = Problem(OBSERVATION, ACTION, HORIZON, 1, tasks, lambda outcome, task: -((outcome - task) ** 2).sum(-1), 1, 17, True)
    built = PearlAgent(config, problem, np.random.SeedSequence(0), "cpu")
    drawn, shape = np.random.default_rng(0), (TRIALS, HORIZON)
    built.learn(
        Trials(
            observation=drawn.normal(size=(*shape, OBSERVATION)).astype(np.float32),
            next_observation=drawn.normal(size=(*shape, OBSERVATION)).astype(np.float32),
            action=drawn.uniform(-1, 1, (*shape, ACTION)).astype(np.float32),
            reward=drawn.normal(size=shape).astype(np.float32),
            terminated=np.zeros(shape, dtype=bool),
            outcome=np.zeros((*shape, 1), dtype=np.float32),
            episode=np.zeros(shape, dtype=np.int64),
            task_index=np.arange(TRIALS) % TASKS,
            length=np.full(TRIALS, HORIZON),
        )
    )
    return built


def one_task_after_another(agent: PearlAgent, members: list[list[int]]) -> None:
    """The same mathematics in a loop over tasks: context, posterior, batch and losses of each, then one step of each optimiser."""
    learner, pearl, data = agent.learner, agent.pearl, agent.replay.data
    config, encoder = learner.config, agent.inference.encoder
    temperature = learner.temperature(torch.zeros(1)).detach()
    chosen = torch.randperm(len(members))[: pearl.meta_batch].tolist()
    batches, critic_loss = [], torch.zeros(())
    for task in chosen:
        recent = torch.tensor(members[task][-pearl.recent_trials :])
        flat = torch.randperm(len(recent) * HORIZON)[: pearl.context_batch]
        context = agent.replay.transitions(recent[flat // HORIZON], flat % HORIZON)
        mean, raw = encoder.network(context[:, : encoder.inputs]).chunk(2, -1)
        precision = (functional.softplus(raw) + 1e-3) ** -2
        variance = 1 / precision.sum(0)
        centre = variance * (precision * mean).sum(0)
        latent = centre + variance.sqrt() * torch.randn(pearl.latent_dim)
        trial = torch.tensor(members[task])[torch.randint(len(members[task]), (config.batch_size,))]
        step = torch.randint(HORIZON, (config.batch_size,))
        held = latent.expand(config.batch_size, -1)
        batch = Batch(
            state=torch.cat([data["observation"][trial, step], held], -1),
            next_state=torch.cat([data["next_observation"][trial, step], held.detach()], -1),
            belief=held.detach(),
            action=data["action"][trial, step],
            reward=data["reward"][trial, step] * pearl.reward_scale,
            terminated=data["terminated"][trial, step].float(),
        )
        batches.append(batch)
        critic_loss = critic_loss + learner._critic_loss(batch, temperature, agent.generator) / len(chosen)
        critic_loss = critic_loss + pearl.kl_weight * 0.5 * (centre**2 + variance - 1 - variance.log()).sum()
    optimisers = (agent.inference.optimiser, learner.critic_optimiser)
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    critic_loss.backward()
    for optimiser in optimisers:
        optimiser.step()
    learner.critics.requires_grad_(False)
    policy_loss, densities = torch.zeros(()), []
    for batch in batches:
        state = batch.state.detach()
        action, log_density = learner.policy.sample(state, agent.generator)
        policy_loss = policy_loss + (temperature * log_density - learner.value(state, action, agent.generator)).mean() / len(chosen)
        densities.append(log_density.detach())
    learner.policy_optimiser.zero_grad(set_to_none=True)
    policy_loss.backward()
    learner.policy_optimiser.step()
    learner.critics.requires_grad_(True)
    learner.temperature.update(torch.zeros(1), torch.cat(densities), learner.target_entropy)
    with torch.no_grad():
        for target, online in ((learner.target_critics, learner.critics), (learner.target_policy, learner.policy)):
            for average, parameter in zip(target.parameters(), online.parameters(), strict=True):
                average.lerp_(parameter, config.polyak)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("sizes", SIZES)
def test_pearl_update(benchmark, sizes):
    """The ratio is to the loop over tasks, timed in turns with our own update in the same run."""
    agent = agent_of(*SIZES[sizes])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batches = TaskBatches(agent.replay, agent.pearl.recent_trials)
    owner = agent.replay.data["task_index"].tolist()
    members = [[slot for slot, task in enumerate(owner) if task == number] for number in range(TASKS)]
    updates = {"ours": lambda: agent.update(batches), "loop": lambda: one_task_after_another(agent, members)}
    best = dict.fromkeys(updates, float("inf"))
    for _ in range(5):
        for name, update in updates.items():
            began = time.process_time()
            update()
            best[name] = min(best[name], time.process_time() - began)
    benchmark.pedantic(updates["ours"], rounds=5)
    torch.set_num_threads(threads)
    benchmark.extra_info["milliseconds"] = round(1e3 * best["ours"], 1)
    benchmark.extra_info["times_a_loop_over_tasks"] = round(best["loop"] / best["ours"], 2)
    print(f"\n{benchmark.name} on torch {torch.__version__}: {benchmark.extra_info}")
