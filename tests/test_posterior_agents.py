"""Agents that draw the task from a posterior: the posterior by hand, elimination, the learnt reward model; and those that know nothing."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_problem import SMALL, random_trials, toy_problem, toy_reward

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.interface import Problem, Transition, Trials
from dmrlad_bench.agents.posterior import TasksPosterior
from dmrlad_bench.agents.task_posterior import TaskPosterior
from dmrlad_bench.agents.thompson import Thompson
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.agent_config import AgentConfig

GOALS = np.array([[-0.75], [-0.25], [0.25], [0.75]])


def sparse_reward(outcome: Any, task: Any) -> Any:
    """1 within 0.2 of the goal, else 0."""
    return (abs(outcome[..., 0] - task[..., 0]) <= 0.2) * 1.0


def sparse_success(outcome: Any, task: Any) -> Any:
    return sparse_reward(outcome, task) > 0


# The action is the outcome; observations are one number, which the tests set to that as well, and the task in training.
PROBLEM = toy_problem(
    observation_dim=2,
    action_dim=1,
    horizon=4,
    episodes_per_trial=1,
    train_tasks=GOALS,
    reward=sparse_reward,
    success=sparse_success,
    reconstruction_dims=0,
)
MODEL = {"hidden": (32, 32), "learning_rate": 5e-3, "batch_size": 96, "updates": 400}
POLICY = {**SMALL["actor_critic"], "critic": "scalar"}


def configured(algorithm: str, **sections: Any) -> AgentConfig:
    content = {name: {**SMALL[name], **sections.pop(name, {})} for name in ("relabel", "exploration", "schedule")}
    content |= {"relabel": {"kind": "hindsight", **sections.pop("relabel", {})}, "inference": {"kind": "none"}}
    content |= {"actor_critic": POLICY, **sections}
    privileged = {"track": "privileged"} if algorithm in ("thompson", "cemrl") else {}
    return AgentConfig(name="toy", algorithm=algorithm, description="", **privileged, **content)  # pyright: ignore[reportArgumentType]


def made(algorithm: str, problem: Problem = PROBLEM, seed: int = 0, **sections: Any) -> Any:
    config = configured(algorithm, **sections)
    return build_agent(config, problem, np.random.SeedSequence(seed), "cpu")


def thompson(seed: int = 0, deviation: float = 0.05, problem: Problem = PROBLEM) -> Thompson:
    return made("thompson", problem, seed, posterior={"deviation": deviation})


def task_posterior(seed: int = 0, problem: Problem = PROBLEM, **model: Any) -> TaskPosterior:
    return made("task-posterior", problem, seed, reward_model={**MODEL, **model})


def oracle(problem: Problem = PROBLEM) -> Any:
    return made("cemrl", problem, task_observable=True)


def seen(place: np.ndarray, reward: np.ndarray) -> Transition:
    """One step of as many environments as there are places."""
    nothing = np.zeros(len(place), dtype=bool)
    column = place[:, None].astype(np.float32)
    return Transition(column, column, reward, column, nothing, nothing, ~nothing)


def live(agent: Any, place: np.ndarray, goal: np.ndarray) -> None:
    """Every environment goes to its place, in the task that the goal is."""
    if hasattr(agent, "observe_outcome"):
        agent.observe_outcome(place[:, None])
    agent.observe(seen(place, sparse_reward(place[:, None], goal[:, None])))


def training_trials(count: int, seed: int) -> Trials:
    """Random places; observations show them, and the task."""
    task = np.arange(count) % len(GOALS)
    trials = random_trials(PROBLEM, count, seed, task_index=task)
    place = np.random.default_rng(seed).uniform(-1, 1, trials.reward.shape).astype(np.float32)
    trials.action[..., 0] = trials.outcome[..., 0] = place
    trials.reward[...] = sparse_reward(trials.outcome, GOALS[task][:, None])
    for part in (trials.observation, trials.next_observation):
        part[..., 0], part[..., 1] = place, GOALS[task]
    return trials


# ---- the posterior ------------------------------------------------------------------------------------------------------


def test_the_posterior_by_hand() -> None:
    posterior = TasksPosterior(2, 3, np.random.default_rng(0))
    np.testing.assert_allclose(posterior.weights(0.5), 1 / 3)
    posterior.see(np.array([[0.0, 1.0, 0.5]] * 2), np.zeros(2), np.array([True, False]))
    posterior.see(np.array([[1.0, 1.0, 0.0]] * 2), np.ones(2), np.array([True, False]))
    errors = np.array([0.0, 1.0, 0.25 + 1.0])  # sums of squares: (0, 0), (1, 0), (1/2, 1)
    expected = np.exp(-errors / (2 * 0.5**2))
    np.testing.assert_allclose(posterior.weights(0.5), [expected / expected.sum(), [1 / 3] * 3])


def test_tasks_that_predict_every_reward_weigh_the_same_and_others_nothing() -> None:
    posterior = TasksPosterior(1, 4, np.random.default_rng(0))
    posterior.see(np.array([[0.0, 1.0, 0.0, 1.0]]), np.array([0.0]), np.array([True]))
    np.testing.assert_allclose(posterior.weights(0.05), [[0.5, 0.0, 0.5, 0.0]], atol=1e-12)
    draws = []
    for _ in range(200):
        posterior.draw(0.05)
        draws.append(int(posterior.held[0]))
    assert set(draws) == {0, 2} and 70 < draws.count(0) < 130


def test_where_all_are_refuted_the_least_wrong_one_is_left() -> None:
    posterior = TasksPosterior(1, 3, np.random.default_rng(0))
    for _ in range(3):
        posterior.see(np.array([[0.0, 0.7, 0.9]]), np.array([1.0]), np.array([True]))
    assert posterior.weights(0.05).argmax() == 2 and posterior.weights(0.05).max() > 0.999


def test_a_draw_is_held_until_it_is_refuted() -> None:
    posterior = TasksPosterior(40, 2, np.random.default_rng(0))
    posterior.draw(0.05)
    before = posterior.held.copy()
    assert set(before) == {0, 1}
    posterior.draw_again(0.05)
    np.testing.assert_array_equal(posterior.held, before)
    posterior.see(np.tile([0.0, 1.0], (40, 1)), np.zeros(40), np.ones(40, dtype=bool))
    posterior.draw_again(0.05)
    assert not posterior.held.any()


# ---- thompson -----------------------------------------------------------------------------------------------------------


def test_thompson_finds_the_task_by_elimination() -> None:
    """It goes to the goal of the task that it holds: each visit leaves one task fewer, and the true one is never given up."""
    agent = thompson()
    goal = GOALS[np.arange(40) % 4, 0]
    agent.begin_trial(40)
    agent.begin_episode()
    posterior = agent._posterior
    assert posterior is not None
    for visit in range(4):
        held = GOALS[posterior.held, 0].copy()
        found = held == goal
        left = (posterior.weights(agent.deviation) > 1e-6).sum(axis=1)
        live(agent, held, goal)
        now = (posterior.weights(agent.deviation) > 1e-6).sum(axis=1)
        assert (now[found] == 1).all()
        np.testing.assert_array_equal(now[~found], left[~found] - 1)
        assert (GOALS[posterior.held, 0][found] == goal[found]).all()
        assert visit < 3 or found.all()
    agent.begin_episode()  # what was found out stays
    np.testing.assert_array_equal(GOALS[posterior.held, 0], goal)


def test_a_scored_agent_acts_by_the_drawn_task_and_a_training_one_by_the_shown() -> None:
    agent, learner = thompson(), oracle()
    shown = np.column_stack([np.zeros(4), GOALS[[0, 1, 2, 3], 0]])
    agent.begin_training_trial(4, 2)
    learner.begin_trial(4)
    for one in (agent, learner):
        one.begin_episode()
    np.testing.assert_array_equal(agent.act(shown, True), learner.act(shown, True))
    agent.begin_trial(4)
    agent.begin_episode()
    held = agent._posterior.held  # pyright: ignore[reportOptionalMemberAccess]
    np.testing.assert_array_equal(agent.act(np.zeros((4, 1)), True), learner.act(np.column_stack([np.zeros(4), GOALS[held, 0]]), True))


@pytest.mark.parametrize("make", [thompson, task_posterior])
def test_it_trains_exactly_as_the_oracle(make: Any) -> None:
    agent, learner = make(), oracle()
    for iteration in range(2):
        for one in (agent, learner):
            one.begin_training_trial(8, iteration + 1)
            one.begin_episode()
        shown = np.column_stack([np.zeros(8), GOALS[np.arange(8) % 4, 0]])
        np.testing.assert_array_equal(agent.act(shown, False), learner.act(shown, False))
        metrics, expected = agent.learn(training_trials(8, iteration)), learner.learn(training_trials(8, iteration))
        assert expected.items() <= metrics.items()
        scored = agent.fork(np.random.SeedSequence(3))  # being scored in between changes nothing
        scored.begin_trial(2)
        scored.begin_episode()
        live(scored, np.zeros(2), np.zeros(2))
    for one, other in zip(agent.learner.policy.parameters(), learner.learner.policy.parameters(), strict=True):
        assert torch.equal(one, other)


# ---- task-posterior -----------------------------------------------------------------------------------------------------


def test_the_learnt_reward_model_separates_tasks_and_finds_them() -> None:
    agent = task_posterior()
    assert agent.deviation == 1.0  # nobody relies on a model that has not learnt
    metrics = agent.learn(training_trials(40, 0))
    agent.learn(training_trials(40, 1))
    assert metrics["reconstruction_updates"] == 400 and agent.gradient_updates == 2 * (400 + 3)
    assert agent.deviation < 0.3

    def forbidden(outcome: Any, task: Any) -> Any:
        raise AssertionError("the reward function is not there while scored")

    agent.problem = replace(PROBLEM, reward=forbidden, success=forbidden)
    agent.hindsight = type(agent.hindsight)(agent.hindsight.tasks, forbidden)
    place = np.repeat(GOALS[:, 0], 4)
    transition = seen(place, np.zeros(16))
    expected = sparse_reward(place[:, None, None], GOALS[None])
    assert np.abs(agent.predicted(transition) - expected).max() < 0.5
    goal = np.tile(GOALS[:, 0], 4)
    agent.begin_trial(16)
    agent.begin_episode()
    for visited in GOALS[:, 0]:
        live(agent, np.full(16, visited), goal)
    np.testing.assert_array_equal(GOALS[agent._posterior.held, 0], goal)  # pyright: ignore[reportOptionalMemberAccess]


def test_balanced_batches_show_met_tasks_among_many_steps_that_meet_none() -> None:
    """A goal that one step in eighty meets makes up a third of a batch."""
    from dmrlad_bench.agents.crossing import Crossing
    from dmrlad_bench.agents.reward_model import judged_steps

    agent = task_posterior(updates=1)
    trials = training_trials(20, 0)
    trials.outcome[...] = 9.0
    trials.outcome[7, 2] = GOALS[1]
    agent.learn(trials)
    generator = torch.Generator().manual_seed(0)
    crossing = Crossing(agent.hindsight, sparse_success, agent.replay, True, generator)
    steps = judged_steps(crossing, agent.replay, 300, generator)
    assert 100 <= int(steps.reward.sum()) < 150  # the pairs that met, and those of the same step that happen to draw its task
    assert (steps.task[steps.reward > 0] == GOALS[1, 0]).all()
    trials.outcome[...] = 9.0
    fresh = task_posterior(updates=1)
    fresh.learn(trials)  # nothing was met anywhere
    assert np.isfinite(fresh.deviation)


def test_a_restored_task_posterior_goes_on_as_it_was() -> None:
    first, second = task_posterior(0, updates=5), task_posterior(1, updates=5)
    first.learn(training_trials(8, 0))
    shard = copy.deepcopy(first.new_replay_shard())
    assert shard is not None
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_replay_shards([shard])
    assert first.learn(training_trials(8, 1)) == second.learn(training_trials(8, 1))
    assert (second.deviation, second.gradient_updates) == (first.deviation, first.gradient_updates)
    place = np.array([0.3, -0.3])
    np.testing.assert_array_equal(first.predicted(seen(place, place)), second.predicted(seen(place, place)))


@pytest.mark.parametrize("make", [thompson, task_posterior])
@pytest.mark.parametrize(("changes", "why"), [({"tasks_change": True}, "changes inside"), ({"relabelable": False}, "does not depend")])
def test_rewards_that_do_not_judge_tasks_are_refused(make: Any, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(CardError, match=why):
        make(problem=toy_problem(**changes))


# ---- blind --------------------------------------------------------------------------------------------------------------


def test_blind_gets_what_one_policy_for_all_tasks_can() -> None:
    """Goals at -0.7 and 0.7, reward 1 - (a - goal)^2: the best single action is 0, which is worth 0.51 in both."""
    goals = np.array([[-0.7], [0.7]])

    def reward(outcome: Any, task: Any) -> Any:
        return 1.0 + toy_reward(outcome, task)

    problem = toy_problem(observation_dim=1, action_dim=1, horizon=4, episodes_per_trial=1, train_tasks=goals, reward=reward)
    critic = {"hidden": (24, 24), "learning_rate": 1e-2, "batch_size": 64, "discount": 0.3, "polyak": 0.1}
    critic |= {"critic": "scalar", "initial_temperature": 0.05, "temperature": "fixed"}
    config = AgentConfig(
        name="blind",
        algorithm="cemrl",
        description="",
        inference={"kind": "none"},  # pyright: ignore[reportArgumentType]
        relabel={"kind": "none"},  # pyright: ignore[reportArgumentType]
        actor_critic=critic,  # pyright: ignore[reportArgumentType]
        exploration={"initial": "coloured", "colour_high": 0.0},  # pyright: ignore[reportArgumentType]
        schedule={"policy_updates": 150, "replay_trials": 500},  # pyright: ignore[reportArgumentType]
    )
    agent: Any = build_agent(config, problem, np.random.SeedSequence(0), "cpu")
    still = np.zeros((64, 1), dtype=np.float32)
    for iteration in range(1, 4):
        trials = random_trials(problem, 64, iteration, task_index=np.arange(64) % 2)
        trials.observation[...] = trials.next_observation[...] = 0.0
        trials.terminated[...] = False
        agent.begin_training_trial(64, iteration)
        agent.begin_episode()
        for step in range(4):
            trials.action[:, step] = trials.outcome[:, step] = agent.act(still, False)
        trials.reward[...] = reward(trials.outcome, goals[trials.task_index][:, None])
        agent.learn(trials)
    agent.begin_trial(2)
    agent.begin_episode()
    action = agent.act(still[:2], True)
    agent.observe(seen(action[:, 0], np.array([1.0, 0.0])))  # rewards tell it nothing
    np.testing.assert_array_equal(agent.act(still[:2], True), action)
    assert reward(action, goals).mean() == pytest.approx(0.51, abs=0.05)


def test_standing_still_is_zero_actions() -> None:
    config = AgentConfig(name="still", algorithm="still", description="")
    agent: Any = build_agent(config, PROBLEM, np.random.SeedSequence(0), "cpu")
    for one in (agent, agent.fork(np.random.SeedSequence(1))):
        one.begin_trial(3)
        assert one.act(np.ones((3, 1)), False).tolist() == [[0.0]] * 3
