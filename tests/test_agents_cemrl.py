"""The composed agent: what an iteration stores and learns, beliefs while acting, divergence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agent_references import window_belief
from toy_agents import PROBLEM, STORE_ONLY, agent_of, lived, trials_of
from toy_problem import random_trials, small_config, toy_reward

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.interface import Agent, Diverged, Transition

STEPS = PROBLEM.horizon * PROBLEM.episodes_per_trial


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
    assert data["held_out"][:8].sum() in (1, 2)  # a fifth of eight, rounded down or up
    assert metrics["relabelled_return"] == pytest.approx(expected.sum(-1).mean(), rel=1e-5)
    assert metrics["relabelled_tasks"] == len(np.unique(tasks))


def test_lived_trials_and_copies_are_told_apart_and_earlier_ones_are_relabelled_again() -> None:
    agent = agent_of(schedule={**STORE_ONLY, "replay_trials": 200}, relabel={"revisited": 5})
    first, second = trials_of(0), trials_of(1)
    for trials in (first, second):
        agent.learn(trials)
    assert agent.replay.size == 16 + 16 + 5  # there was nothing to revisit in the first iteration
    copies = agent.replay.data["copy"][:37].numpy()
    np.testing.assert_array_equal(copies, [*[False] * 8, *[True] * 8, *[False] * 8, *[True] * 13])
    lived_trials = np.concatenate([first.observation, second.observation])
    held_out = np.concatenate([agent.replay.data["held_out"][:8], agent.replay.data["held_out"][16:24]])
    for slot in range(32, 37):
        match = (agent.replay.data["observation"][slot].numpy() == lived_trials).all((1, 2))
        assert match.sum() == 1
        assert match[:8].any()  # of an earlier iteration, not of this one once more
        assert bool(agent.replay.data["held_out"][slot]) == held_out[match][0]
        task = agent.problem.train_tasks[int(agent.replay.data["task_index"][slot])]
        length = int(agent.replay.data["length"][slot])
        outcome = agent.replay.data["outcome"][slot].numpy()
        np.testing.assert_allclose(agent.replay.data["reward"][slot, :length], toy_reward(outcome, task)[:length], rtol=1e-5, atol=1e-6)


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
        parts = (trials.observation, trials.action, trials.reward, trials.next_observation, trials.terminated)
        observation, action, reward, following, terminated = (part[:, step] for part in parts)
        agent.observe(Transition(observation, action, reward, following, terminated, terminated, active))


def test_learning_lowers_the_reconstruction_error_and_counts_its_updates() -> None:
    trials = random_trials(PROBLEM, 20, 0)
    trials = replace(trials, next_observation=0.5 * trials.observation)
    errors = {}
    for updates in (1, 80):
        agent = agent_of(
            inference={"learning_rate": 1e-2, "validation_interval": 20, "patience": 100},
            schedule={"reconstruction_updates": updates, "policy_updates": 2},
        )
        metrics = agent.learn(trials)
        errors[updates] = metrics["validation_state_error"]
        assert agent.gradient_updates == updates + 2 == metrics["reconstruction_updates"] + 2
        assert {"critic", "policy", "temperature", "entropy", "value"} <= metrics.keys()
        assert all(np.isfinite(value) for value in metrics.values())
        assert agent.phase_seconds.keys() == {"relabel", "reconstruct", "re-infer", "improve"}
    assert errors[80] < 0.5 * errors[1]


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


def test_equal_seeds_give_equal_agents_and_others_do_not() -> None:
    metrics = [agent_of(seed).learn(trials_of(0)) for seed in (0, 0, 1)]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


@pytest.mark.parametrize(
    ("sections", "loss"), [({}, "reconstruction"), ({"inference": {"kind": "none"}, "relabel": {"kind": "none"}}, "critic")]
)
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
