"""Saving, restoring and forking the agent: the same actions and the same learning, and nobody else disturbed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from toy_agents import STORE_ONLY, agent_of, lived, transition_of, trials_of

SAVED = [
    {},
    {"actor_critic": {"critic": "scalar", "temperature": "latent"}},
    {"actor_critic": {"fractions": "learned"}},
    {"relabel": {"kind": "random"}},
]


@pytest.mark.parametrize("sections", SAVED)
def test_a_restored_agent_acts_and_learns_the_same(sections: dict[str, Any]) -> None:
    small = {**sections, "schedule": {"replay_trials": 40}}
    first, second = agent_of(0, **small), agent_of(1, **small)
    shards = []
    for seed in range(3):  # 8 trials and 8 copies each; the ring of 40 wraps
        first.learn(trials_of(seed))
        shards.append(copy.deepcopy(first.new_replay_shard()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_replay_shards(shards)
    first_metrics, second_metrics = (agent.learn(trials_of(9)) for agent in (first, second))
    assert first_metrics == second_metrics
    np.testing.assert_array_equal(lived(first), lived(second))
    for one, other in zip(first.learner.policy.parameters(), second.learner.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert second.gradient_updates == first.gradient_updates


def test_a_restored_agent_acts_the_same_before_it_learns() -> None:
    first, second = agent_of(0), agent_of(1)
    first.learn(trials_of(0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    np.testing.assert_array_equal(lived(first), lived(second))


@pytest.mark.parametrize("exploration", [{"sampled_share": 1.0}, {"stored_share": 1.0}, {"coloured_share": 0.5}])
def test_a_restored_agent_collects_the_same_before_it_learns(exploration: dict[str, Any]) -> None:
    """The next iteration begins with acting: whatever exploration reads must be there again by then."""
    first, second = agent_of(0, exploration=exploration), agent_of(1, exploration=exploration)
    first.learn(trials_of(0))
    shard = first.new_replay_shard()
    assert shard is not None
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_replay_shards([copy.deepcopy(shard)])
    for agent in (first, second):
        agent.begin_training_trial(3, 2)
        agent.begin_episode()
    for step in range(3):
        np.testing.assert_array_equal(first.act(np.zeros((3, 3)), False), second.act(np.zeros((3, 3)), False))
        for agent in (first, second):
            agent.observe(transition_of(step, 3))


def test_shards_rebuild_a_ring_that_one_iteration_wraps() -> None:
    """Fewer places than an iteration stores with its copies: the record must still be readable."""
    schedule = {**STORE_ONLY, "replay_trials": 12}
    first, second = agent_of(0, schedule=schedule), agent_of(1, schedule=schedule)
    first.learn(trials_of(0))
    shard = first.new_replay_shard()
    assert shard is not None
    second.load_replay_shards([shard])
    for name, value in first.replay.data.items():
        assert torch.equal(value, second.replay.data[name])


def test_a_fork_disturbs_nothing() -> None:
    agent, undisturbed = agent_of(), agent_of()
    for entry in (agent, undisturbed):
        entry.learn(trials_of(0))
        entry.begin_trial(3)
        entry.begin_episode()
        entry.act(np.zeros((3, 3)), False)
        entry.observe(transition_of(0, 3))
    fork = agent.fork(np.random.SeedSequence(5))
    lived(fork)
    fork.begin_training_trial(2, 1)
    fork.begin_episode()
    fork.act(np.zeros((2, 3)), False)
    for step in range(3):
        np.testing.assert_array_equal(agent.act(np.zeros((3, 3)), False), undisturbed.act(np.zeros((3, 3)), False))
        for entry in (agent, undisturbed):
            entry.observe(transition_of(step, 3))
    assert agent.learn(trials_of(1)) == undisturbed.learn(trials_of(1))


def test_a_fork_acts_with_the_agent_s_parameters_and_its_own_noise() -> None:
    agent = agent_of()
    agent.learn(trials_of(0))
    first, same, other = (agent.fork(np.random.SeedSequence(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(lived(first), lived(same))
    assert not np.array_equal(lived(first), lived(other))
    np.testing.assert_array_equal(lived(first, deterministic=True), lived(agent, deterministic=True))
