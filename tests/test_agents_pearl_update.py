"""PEARL's update: where gradients go, one z a task, and where contexts and batches are drawn from."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from toy_pearl import PROBLEM, pearl_of, pearl_trials
from toy_problem import as_tensors, filled_replay, generator_of, random_trials

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.pearl import PearlAgent
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.task_batches import TaskBatches

STORE_ONLY = {"policy_updates": 0}


def stored(seed: int = 0, **sections: Any) -> tuple[PearlAgent, TaskBatches]:
    """An agent that has trials but has not learnt yet."""
    agent = pearl_of(seed, schedule=STORE_ONLY, **sections)
    agent.learn(pearl_trials(3))
    return agent, TaskBatches(agent.replay, agent.pearl.recent_trials)


def encoder_gradients(agent: PearlAgent) -> list[torch.Tensor]:
    gradients = [parameter.grad for parameter in agent.inference.encoder.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_the_encoder_s_gradient_is_that_of_critic_loss_and_divergence(kl_weight: float) -> None:
    """Against one graph through everything: half the squared errors of both critics, and the sum of the tasks' divergences."""
    agent, batches = stored(pearl={"kl_weight": kl_weight})
    other = copy.deepcopy(agent)
    other.update(batches)

    learner, generator = agent.learner, agent.generator
    places = batches.draw_tasks(3, generator)
    trial, step, valid = batches.contexts(places, 7, generator)
    rows = agent.inference.encoder.rows(agent.replay.transitions(trial, step), valid)
    belief = agent.inference.encoder.of_context(rows)
    mean, deviation = belief.mean[:, 0], belief.deviation[:, 0]
    latent = mean + deviation * torch.randn(mean.shape, generator=generator)
    batch = agent._batch(batches, places, latent)
    with torch.no_grad():
        action, log_density = learner.target_policy.sample(batch.next_state, generator)
        ahead = learner.target_critics(batch.next_state, action).amin(0) - learner.temperature(batch.belief) * log_density
        target = batch.reward + learner.config.discount * (1 - batch.terminated) * ahead
    loss = 0.5 * sum((critic(batch.state, batch.action) - target).square().mean() for critic in learner.critics)
    normal = torch.distributions.Normal
    divergence = torch.distributions.kl_divergence(normal(mean, deviation), normal(0.0, 1.0)).sum()
    expected = torch.autograd.grad(loss + kl_weight * divergence, list(agent.inference.encoder.parameters()))
    for ours, theirs in zip(encoder_gradients(other), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert any(gradient.abs().max() > 0 for gradient in expected)


def test_the_policy_s_loss_sends_no_gradient_to_the_encoder() -> None:
    """Critics that do not look at z leave the encoder nothing to learn from, however much the policy looks at it."""
    agent, batches = stored(pearl={"kl_weight": 0.0})
    state_dim = PROBLEM.observation_dim + 2
    with torch.no_grad():
        critics: list[Any] = [*agent.learner.critics, *agent.learner.target_critics]
        for critic in critics:
            critic.trunk[0].weight[:, PROBLEM.observation_dim : state_dim] = 0.0
    before = copy.deepcopy(agent.learner.policy.state_dict())
    agent.update(batches)
    assert all(gradient.abs().max() == 0 for gradient in encoder_gradients(agent))
    assert any(not torch.equal(before[name], value) for name, value in agent.learner.policy.state_dict().items())


def captured(agent: PearlAgent, batches: TaskBatches) -> Batch:
    """The batch of one update."""
    seen: list[Batch] = []
    learn = agent.learner.update
    agent.learner.update = lambda batch, generator: seen.append(batch) or learn(batch, generator)  # type: ignore[method-assign]
    agent.update(batches)
    return seen[0]


def test_every_task_of_an_update_has_one_latent_and_its_own_transitions() -> None:
    agent = pearl_of(schedule=STORE_ONLY)
    trials = pearl_trials(3)
    trials.observation[..., 0] = trials.next_observation[..., 0] = trials.task_index[:, None]
    agent.learn(trials)
    batch = captured(agent, TaskBatches(agent.replay, 2))
    assert batch.state.shape == (3 * 6, 3 + 2)
    for part in (batch.state, batch.next_state):
        torch.testing.assert_close(part[:, 3:].detach(), batch.belief)
        assert (part[:, 0].view(3, 6).detach() == part[::6, :1].detach()).all()
    latents = batch.belief.view(3, 6, 2)
    assert (latents == latents[:, :1]).all()
    assert len(torch.unique(latents[:, 0], dim=0)) == 3
    assert len(torch.unique(batch.state[::6, 0].detach())) == 3  # three different tasks
    assert batch.state.requires_grad and not batch.next_state.requires_grad and not batch.belief.requires_grad


def test_rewards_are_scaled_for_the_critics_only() -> None:
    agent, batches = stored(pearl={"reward_scale": 3.0})
    batch = captured(agent, batches)
    known = agent.replay.data["reward"][: agent.replay.size][agent.replay.lived(agent.replay.trials)]
    assert all((known * 3.0 - value).abs().min() < 1e-6 for value in batch.reward)
    assert agent.replay.statistics.means[2].item() == pytest.approx(float(known.mean()), abs=1e-5)


def test_contexts_come_from_each_task_s_newest_trials_without_replacement() -> None:
    """The ring has wrapped, so slot numbers say nothing about age."""
    replay = TrialReplay(PROBLEM, 13, 0, torch.device("cpu"))
    written: list[int | None] = [None] * 13
    owners: dict[int, int] = {}
    number = 0
    for seed in range(4):
        trials = random_trials(PROBLEM, 7, seed, length=np.array([10, 3, 5, 10, 2, 7, 9]))
        for slot, task in zip(replay.add(as_tensors(trials)).tolist(), trials.task_index.tolist(), strict=True):
            written[slot], owners[number] = number, task
            number += 1
    batches = TaskBatches(replay, 2)
    newest = {task: sorted((w for w in written if w is not None and owners[w] == task), reverse=True)[:2] for task in set(owners.values())}
    places = torch.arange(len(batches.tasks))
    for count in (4, 12, 50):
        trial, step, valid = batches.contexts(places, count, generator_of(count))
        for row, task in enumerate(batches.tasks.tolist()):
            chosen = [(written[t], s) for t, s, v in zip(trial[row].tolist(), step[row].tolist(), valid[row].tolist(), strict=True) if v]
            lengths = {w: int(replay.data["length"][written.index(w)]) for w in newest[task]}
            assert len(set(chosen)) == len(chosen) == min(count, sum(lengths.values()))
            assert all(w in lengths and s < lengths[w] for w, s in chosen)


def test_context_steps_are_equally_likely() -> None:
    trials = random_trials(PROBLEM, 2, 0, length=np.array([6, 4]), task_index=np.array([1, 1]))
    batches = TaskBatches(filled_replay(PROBLEM, trials), 5)
    counts = np.zeros((2, 10))
    generator = generator_of(0)
    for _ in range(3000):
        trial, step, valid = batches.contexts(torch.zeros(1, dtype=torch.int64), 3, generator)
        assert valid.all()
        np.add.at(counts, (trial[0].numpy(), step[0].numpy()), 1)
    lived = np.concatenate([counts[0, :6], counts[1, :4]])
    assert counts.sum() == lived.sum()
    assert chisquare(lived).pvalue > 1e-3


def test_batches_are_uniform_over_all_stored_steps_of_the_task() -> None:
    owner = np.array([2, 0, 2, 2, 3])
    replay = filled_replay(PROBLEM, random_trials(PROBLEM, 5, 0, length=np.array([10, 4, 1, 5, 8]), task_index=owner))
    batches = TaskBatches(replay, 1)
    assert batches.tasks.tolist() == [0, 2, 3]
    trial, step = batches.steps(torch.tensor([1, 0]), 16_000, generator_of(0))
    counts = np.zeros((5, 10))
    np.add.at(counts, (trial[0].numpy(), step[0].numpy()), 1)
    lived = np.concatenate([counts[0], counts[2, :1], counts[3, :5]])
    assert lived.sum() == 16_000 and chisquare(lived).pvalue > 1e-3
    assert (trial[1] == 1).all() and step[1].max() == 3


def test_an_update_has_each_task_at_most_once_and_each_equally_often() -> None:
    _, batches = stored()
    generator = generator_of(0)
    drawn = np.stack([batches.draw_tasks(3, generator).numpy() for _ in range(2000)])
    assert all(len(set(row)) == 3 for row in drawn)
    assert chisquare(np.bincount(drawn.ravel(), minlength=4)).pvalue > 1e-3
    assert sorted(batches.draw_tasks(9, generator).tolist()) == [0, 1, 2, 3]
