"""The composed agent: what an iteration stores and learns, beliefs while acting, saving, forking, divergence."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agent_references import window_belief
from toy_problem import random_trials, small_config, toy_problem, toy_reward

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Agent, Diverged, Problem, Transition, Trials

PROBLEM = toy_problem()
STEPS = PROBLEM.horizon * PROBLEM.episodes_per_trial
STORE_ONLY = {"reconstruction_updates": 0, "policy_updates": 0}


def agent_of(seed: int = 0, problem: Problem = PROBLEM, **sections: dict[str, Any]) -> Cemrl:
    agent = build_agent(small_config(**sections), problem, np.random.SeedSequence(seed), "cpu")
    assert isinstance(agent, Cemrl)
    return agent


def trials_of(seed: int, count: int = 8) -> Trials:
    return random_trials(PROBLEM, count, seed, length=np.resize([10, 4, 7, 9], count))


def transition_of(seed: int, num_envs: int, active: np.ndarray | None = None) -> Transition:
    drawn = np.random.default_rng(seed)
    nothing = np.zeros(num_envs, dtype=bool)
    observation, following = drawn.normal(size=(2, num_envs, 3))
    active = np.ones(num_envs, dtype=bool) if active is None else active
    return Transition(observation, drawn.uniform(-1, 1, (num_envs, 2)), drawn.normal(size=num_envs), following, nothing, nothing, active)


def lived(agent: Cemrl, deterministic: bool = False, steps: int = 4) -> np.ndarray:
    """Actions `(steps, 3, 2)` of one trial in which three environments always report the same."""
    agent.begin_trial(3)
    agent.begin_episode()
    actions = []
    for step in range(steps):
        actions.append(agent.act(np.full((3, 3), 0.1 * step), deterministic))
        agent.observe(transition_of(step, 3))
    return np.stack(actions)


def test_copies_are_filed_under_their_new_task_with_its_rewards() -> None:
    agent, trials = agent_of(schedule=STORE_ONLY, relabel={"copies": 2}), trials_of(0)
    metrics = agent.learn(trials)
    data = {name: value[:24].numpy() for name, value in agent.replay.data.items()}
    assert agent.replay.size == 24
    for name, value in vars(trials).items():
        np.testing.assert_array_equal(data[name][:8], value)
        if name not in ("reward", "task_index"):
            np.testing.assert_array_equal(data[name][8:], np.repeat(value, 2, 0))
    tasks = data["task_index"][8:]
    assert (tasks[::2] != tasks[1::2]).all()
    inside = np.arange(STEPS) < data["length"][8:, None]
    expected = toy_reward(data["outcome"][8:].astype(np.float64), PROBLEM.train_tasks[tasks][:, None]) * inside
    np.testing.assert_allclose(data["reward"][8:], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data["held_out"][8:], np.repeat(data["held_out"][:8], 2))
    assert data["held_out"][:8].sum() == 2  # a fifth of eight, rounded
    assert metrics["relabelled_return"] == pytest.approx(expected.sum(-1).mean(), rel=1e-5)
    assert metrics["relabelled_tasks"] == len(np.unique(tasks))


@pytest.mark.parametrize("without", [{"relabel": {"kind": "none"}}, {"problem": replace(PROBLEM, relabelable=False)}])
def test_nothing_is_relabelled_where_the_card_or_the_family_says_so(without: Any) -> None:
    agent = agent_of(schedule=STORE_ONLY, **without)
    agent.learn(trials_of(0))
    assert agent.replay.size == 8


def test_single_trial_iterations_reach_training_as_well_as_validation() -> None:
    """A fifth of trials is held out, however few an iteration brings: otherwise nothing new would ever be learnt from."""
    agent = agent_of(schedule={**STORE_ONLY, "replay_trials": 200}, relabel={"kind": "none"})
    agent.learn(trials_of(0))
    for seed in range(1, 101):
        agent.learn(trials_of(seed, 1))
    held_out = agent.replay.data["held_out"][8:108].numpy()
    assert held_out.mean() == pytest.approx(0.2, abs=0.15)


def test_stored_beliefs_are_those_of_the_windows_before_each_step() -> None:
    """Re-inferred with the new encoder, over episodes of a trial, never over trials."""
    agent = agent_of()
    agent.learn(trials_of(0))
    agent.learn(trials_of(1))
    assert agent.inference is not None
    for trial in (0, 1, 9, 31):
        length = int(agent.replay.data["length"][trial])
        transitions = agent.replay.transitions(torch.tensor(trial), slice(None)).numpy()
        for step in range(length + 1):
            expected = window_belief(agent.inference.encoder, transitions[max(0, step - 3) : step])
            np.testing.assert_allclose(agent.replay.belief[trial, step].numpy(), expected.mean[0], rtol=1e-3, atol=1e-4)


def test_stored_beliefs_carry_their_deviations_where_the_card_says_so() -> None:
    agent = agent_of(actor_critic={"belief_input": "mean_and_deviation"})
    agent.learn(trials_of(0))
    assert agent.inference is not None
    transitions = agent.replay.transitions(torch.tensor(0), slice(None)).numpy()
    for step in range(STEPS + 1):
        expected = window_belief(agent.inference.encoder, transitions[max(0, step - 3) : step])
        np.testing.assert_allclose(
            agent.replay.belief[0, step].numpy(), np.concatenate([expected.mean[0], expected.deviation[0]]), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("belief_input", ["mean", "mean_and_deviation"])
@pytest.mark.parametrize("window", [0, 3])
def test_acting_beliefs_equal_stored_ones(belief_input: str, window: int) -> None:
    """An agent that lives a stored trial acts on the beliefs that training reads."""
    agent = agent_of(actor_critic={"belief_input": belief_input}, inference={"window": window})
    trials = trials_of(0)
    agent.learn(trials)
    agent.begin_trial(8)
    for step in range(STEPS):
        if step % PROBLEM.horizon == 0:
            agent.begin_episode()
        active = step < trials.length
        state = torch.cat([torch.as_tensor(trials.observation[:, step]), agent.replay.belief[:8, step]], -1)
        with torch.no_grad():
            expected = agent.learner.policy.mode(state).numpy()
        np.testing.assert_allclose(agent.act(trials.observation[:, step], True)[active], expected[active], rtol=1e-3, atol=1e-4)
        parts = (trials.observation, trials.action, trials.reward, trials.next_observation, trials.terminated, trials.terminated)
        agent.observe(Transition(*(part[:, step] for part in parts), active))


def test_learning_lowers_the_reconstruction_error_and_counts_its_updates() -> None:
    agent = agent_of(
        inference={"learning_rate": 1e-2, "validation_interval": 20, "patience": 100}, schedule={"reconstruction_updates": 60, "policy_updates": 2}
    )
    trials = random_trials(PROBLEM, 20, 0)
    trials = replace(trials, next_observation=0.5 * trials.observation)
    metrics = [agent.learn(trials) for _ in range(2)]
    assert metrics[1]["reconstruction"] < metrics[0]["reconstruction"]
    assert metrics[1]["validation_state_error"] < 0.5 * metrics[0]["validation_state_error"]
    assert agent.gradient_updates == sum(entry["reconstruction_updates"] for entry in metrics) + 4
    assert {"critic", "policy", "temperature", "entropy", "value"} <= metrics[0].keys()
    assert all(np.isfinite(value) for entry in metrics for value in entry.values())
    assert agent.phase_seconds.keys() == {"relabel", "reconstruct", "re-infer", "improve"}


def test_an_agent_without_inference_learns_on_observations_alone() -> None:
    agent = agent_of(inference={"kind": "none"}, relabel={"kind": "random"}, actor_critic={"critic": "scalar"})
    assert agent.learn(trials_of(0))["critic"] > 0
    assert agent.learner.policy.trunk[0].weight.shape == (8, 3)  # pyright: ignore[reportAttributeAccessIssue]
    assert lived(agent).shape == (4, 3, 2)


def test_actions_depend_on_the_context_and_the_trial_ends_it() -> None:
    agent = agent_of()
    agent.learn(trials_of(0))
    first = lived(agent, deterministic=True)
    np.testing.assert_array_equal(first, lived(agent, deterministic=True))  # nothing is left of the last trial
    agent.begin_trial(3)
    agent.begin_episode()
    assert not np.allclose(agent.act(np.full((3, 3), 0.3), True), first[3])
    assert isinstance(agent, Agent)
    assert np.abs(first).max() <= 1.0


SAVED = [{}, {"actor_critic": {"critic": "scalar", "temperature": "latent"}}, {"actor_critic": {"fractions": "learned"}}, {"relabel": {"kind": "random"}}]


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


def test_shards_rebuild_a_ring_that_one_iteration_wraps() -> None:
    """Fewer places than an iteration stores with its copies: the record must still be readable."""
    small = {"schedule": {**STORE_ONLY, "replay_trials": 12}}
    first, second = agent_of(0, **small), agent_of(1, **small)
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


def test_equal_seeds_give_equal_agents_and_others_do_not() -> None:
    metrics = [agent_of(seed).learn(trials_of(0)) for seed in (0, 0, 1)]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


@pytest.mark.parametrize(("sections", "loss"), [({}, "reconstruction"), ({"inference": {"kind": "none"}, "relabel": {"kind": "none"}}, "critic")])
def test_a_reward_that_is_no_number_stops_learning_and_names_the_loss(sections: dict[str, Any], loss: str) -> None:
    agent, trials = agent_of(**sections), trials_of(0)
    trials.reward[:, 0] = np.nan
    with pytest.raises(Diverged, match=rf"{loss} loss is nan at \w+ update \d+"):
        agent.learn(trials)


def test_the_random_agent_is_uniform_and_forks() -> None:
    config = small_config().model_copy(update={"algorithm": "random"})
    agent: Any = build_agent(config, PROBLEM, np.random.SeedSequence(0), "cpu")
    agent.begin_trial(5000)
    actions = agent.act(np.zeros((5000, 3)), True)
    assert actions.shape == (5000, 2)
    assert (actions.mean(), actions.std()) == pytest.approx((0.0, 1 / 3**0.5), abs=0.03)
    fork = agent.fork(np.random.SeedSequence(1))
    fork.begin_trial(2)
    assert fork.act(np.zeros((2, 3)), False).shape == (2, 2)
