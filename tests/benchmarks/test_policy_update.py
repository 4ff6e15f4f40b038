"""A policy update at the reference's shapes against a naive one, and its time as the replay grows.

Batches of 256, 3 x 300 networks, 16 fractions, 64 cosines. The naive update computes the same losses eagerly: gradients of every critic
weight in the policy's pass too, one optimiser a network that is neither fused nor batched, target averages parameter by parameter with
temporaries, and a batch drawn by listing every stored step. Everything is processor time of one thread. The reference's own: 268 ms
with one thread.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from reference_sizes import PROBLEM, fill, medians, reference_agent, report

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.critics import quantile_huber_loss, risk_value
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import ActorCritic, Exploration, Inference, Relabel, Schedule

TRIALS = 200
FEW, MANY = 40_000, 4_000_000


class Naive:
    """The same update as a plain program would write it."""

    def __init__(self, agent: Cemrl) -> None:
        self.agent, self.learner = agent, agent.learner
        learner = self.learner
        rate = learner.config.learning_rate
        self.policy = torch.optim.Adam(learner.policy.parameters(), rate, foreach=False)
        self.critics = [torch.optim.Adam(critic.parameters(), rate, foreach=False) for critic in learner.critics]

    def batch(self) -> Batch:
        replay = self.agent.replay
        places = torch.cat([torch.stack([trial.expand(replay.steps), torch.arange(replay.steps)], -1) for trial in replay.trials])
        trial, step = places[torch.randint(len(places), (256,))].T
        belief = replay.belief[trial, step]
        return Batch(
            torch.cat([replay.data["observation"][trial, step], belief], -1),
            torch.cat([replay.data["next_observation"][trial, step], belief], -1),
            belief,
            replay.data["action"][trial, step],
            replay.data["reward"][trial, step],
            replay.data["terminated"][trial, step].float(),
        )

    def update(self) -> None:
        learner, batch, generator = self.learner, self.batch(), self.agent.generator
        config, temperature = learner.config, learner.temperature(batch.belief).detach()
        with torch.no_grad():
            action, density = learner.target_policy.sample(batch.next_state, generator)
            ahead = learner.fractions(batch.next_state, action, generator)
            following = torch.stack([critic(batch.next_state, action, ahead.midpoints) for critic in learner.target_critics]).amin(0)
            discount = config.discount * (1 - batch.terminated).unsqueeze(-1)
            target = batch.reward.unsqueeze(-1) + discount * (following - (temperature * density).unsqueeze(-1))
        here = learner.fractions(batch.state, batch.action, generator)
        for critic, optimiser in zip(learner.critics, self.critics, strict=True):
            prediction = critic(batch.state, batch.action, here.midpoints)
            optimiser.zero_grad()
            quantile_huber_loss(prediction, target, here.midpoints, ahead.weights).backward()
            optimiser.step()
        action, density = learner.policy.sample(batch.state, generator)
        asked = learner.fractions(batch.state, action, generator)
        answers = torch.stack([critic(batch.state, action, asked.midpoints) for critic in learner.critics]).amin(0)
        self.policy.zero_grad()
        (temperature * density - risk_value(answers, asked, "neutral", 0.0)).mean().backward()
        self.policy.step()
        learner.temperature.update(batch.belief, density.detach(), learner.target_entropy)
        for average, online in ((learner.target_critics, learner.critics), (learner.target_policy, learner.policy)):
            for old, new in zip(average.parameters(), online.parameters(), strict=True):
                old.data = (1 - config.polyak) * old.data + config.polyak * new.data


def test_policy_update(benchmark) -> None:
    agent, other = reference_agent(TRIALS), reference_agent(TRIALS)
    naive = Naive(other)

    def ours() -> None:
        agent.learner.update(agent.replay.batch(256, False, agent.generator), agent.generator)

    taken = medians({"ours": ours, "naive": naive.update}, rounds=7)
    share = taken["ours"] / taken["naive"]
    report(benchmark, taken["ours"], share_of_naive=share, share_of_the_reference_s_milliseconds=taken["ours"] / 0.268)


def small_agent(steps: int) -> Cemrl:
    """Small networks and observations, so that drawing the batch is a large part of an update, and 4 M transitions fit."""
    problem = replace(PROBLEM, observation_dim=3, action_dim=1, outcome_dim=1, reconstruction_dims=3)
    config = AgentConfig(
        name="small",
        description="",
        algorithm="cemrl",
        inference=Inference(encoder_hidden=(16,), decoder_hidden=(16,)),
        actor_critic=ActorCritic(hidden=(32, 32), fraction_count=4, cosines=8),
        relabel=Relabel(kind="none"),
        exploration=Exploration(initial="policy"),
        schedule=Schedule(replay_trials=steps // problem.horizon),
    )
    agent = Cemrl(config, problem, np.random.SeedSequence(0), "cpu")
    fill(agent.replay, steps // problem.horizon)
    assert agent.inference is not None
    agent._reinfer(agent.inference)
    return agent


def ten_updates(agent: Cemrl) -> None:
    for _ in range(10):
        agent.learner.update(agent.replay.batch(256, True, agent.generator), agent.generator)


def test_cost_does_not_grow_with_the_replay(benchmark) -> None:
    few, many = small_agent(FEW), small_agent(MANY)
    taken = medians({"few": lambda: ten_updates(few), "many": lambda: ten_updates(many)}, rounds=9)
    report(benchmark, taken["many"] / 10, times_an_update_at_40_k=taken["many"] / taken["few"], memory_over_stored_bytes=memory_ratio())


def memory_ratio() -> float:
    """Peak growth of a fresh process that stores 4 M transitions, infers their beliefs and learns, over the stored bytes."""
    script = f"import test_policy_update as benchmark; print(benchmark.growth({MANY}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return float(done.stdout)


def growth(steps: int) -> float:
    """`memory_ratio` of this process, which must not have held more before."""
    ten_updates(small_agent(FEW))  # what torch and the libraries need once is not the replay's
    before = most_resident()
    agent = small_agent(steps)
    ten_updates(agent)
    replay = agent.replay
    stored = sum(value.numel() * value.element_size() for value in (*replay.data.values(), replay.belief))
    return (most_resident() - before) / stored


def most_resident() -> float:
    """Bytes of memory that the process held at its peak (Linux). Not `ru_maxrss`: a process takes that over from who started it."""
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(peak.split()[1]) * 1024.0
