"""What drives training trials: noise in the iterations that ask for it, beliefs sampled and held, or the plain policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_problem import random_trials, small_config, toy_problem

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Transition

PROBLEM = toy_problem(horizon=6)


def agent_of(**exploration: Any) -> Cemrl:
    """A learner whose policy reacts strongly to its belief."""
    agent = Cemrl(small_config(exploration=exploration), PROBLEM, np.random.SeedSequence(0), "cpu")
    agent.learn(random_trials(PROBLEM, 8, 0))
    return agent


def episodes_of(agent: Cemrl, envs: int, count: int = 2, iteration: int | None = 5) -> np.ndarray:
    """Deterministic actions `(episodes, steps, envs, 2)` at one and the same observation, while the context grows."""
    drawn, nothing = np.random.default_rng(1), np.zeros(envs, dtype=bool)
    if iteration is None:
        agent.begin_trial(envs)
    else:
        agent.begin_training_trial(envs, iteration)
    actions = []
    for _ in range(count):
        agent.begin_episode()
        for _ in range(PROBLEM.horizon):
            actions.append(agent.act(np.full((envs, 3), 0.5), True))
            seen, following = np.tile(drawn.normal(size=(2, 1, 3)), (1, envs, 1))
            agent.observe(Transition(seen, actions[-1] * 0, np.zeros(envs), following, nothing, nothing, ~nothing))
    return np.stack(actions).reshape(count, PROBLEM.horizon, envs, 2)


def changes(actions: np.ndarray) -> list[bool]:
    """Whether the action changed from one step of an episode to the next, `(steps - 1,)`."""
    return [bool((actions[0, step] != actions[0, step + 1]).any()) for step in range(PROBLEM.horizon - 1)]


def test_point_beliefs_change_with_every_step() -> None:
    actions = episodes_of(agent_of(), 4)
    assert changes(actions) == [True] * 5
    np.testing.assert_allclose(actions, actions[:, :, [0, 0, 0, 0]], atol=1e-5)  # and are the same for environments that saw the same


def test_sampled_beliefs_are_held_over_an_episode_and_redrawn_for_the_next() -> None:
    actions = episodes_of(agent_of(sampled_share=1.0), 4)
    assert changes(actions) == [False] * 5
    assert (actions[0, 0] != actions[1, 0]).any(-1).all()
    assert len(np.unique(actions[0, 0], axis=0)) == 4  # a draw for every environment


@pytest.mark.parametrize(
    ("interval", "expected"), [(2, [False, True, False, True, False]), (1, [True] * 5), (3, [False, False, True, False, False])]
)
def test_sampled_beliefs_are_redrawn_at_the_interval(interval: int, expected: list[bool]) -> None:
    assert changes(episodes_of(agent_of(sampled_share=1.0, resample_interval=interval), 4)) == expected


def test_sampling_is_for_the_given_share_of_trials_and_never_for_evaluation() -> None:
    agent = agent_of(sampled_share=0.25)
    actions = episodes_of(agent, 400, count=1)[0]
    assert (actions == actions[0]).all((0, 2)).mean() == pytest.approx(0.25, abs=0.07)
    tested = episodes_of(agent, 3, iteration=None)
    assert changes(tested) == [True] * 5
    np.testing.assert_allclose(tested, tested[:, :, [0, 0, 0]], atol=1e-5)


def test_stored_beliefs_are_those_of_the_best_trial_of_a_random_task() -> None:
    agent = agent_of(stored_share=1.0)
    actions = episodes_of(agent, 200)
    assert changes(actions) == [False] * 5
    data = {name: value[: agent.replay.size] for name, value in agent.replay.data.items()}
    expected = []
    for task in np.unique(data["task_index"]):
        own = np.flatnonzero(data["task_index"].numpy() == task)
        best = own[data["reward"][own].sum(-1).numpy().argmax()]
        state = torch.cat([torch.full((3,), 0.5), agent.replay.belief[best, data["length"][best]]])
        with torch.no_grad():
            expected.append(agent.learner.policy.mode(state).numpy())
    for episode in actions[:, 0]:
        distance = np.abs(episode[:, None] - np.array(expected)).max(-1)
        np.testing.assert_allclose(distance.min(-1), 0.0, atol=1e-5)
        assert set(distance.argmin(-1)) == set(range(len(expected)))  # every task is tried


def test_without_stored_trials_beliefs_are_sampled_from_the_prior() -> None:
    agent = Cemrl(small_config(exploration={"stored_share": 1.0}), PROBLEM, np.random.SeedSequence(0), "cpu")
    actions = episodes_of(agent, 4, iteration=1)
    assert changes(actions) == [False] * 5
    assert len(np.unique(actions[0, 0], axis=0)) == 4


def driven_share(agent: Cemrl, iteration: int | None) -> float:
    """Share of trials whose actions are not those of the policy."""
    actions = episodes_of(agent, 300, count=1, iteration=iteration)[0]
    policy = episodes_of(agent.fork(np.random.SeedSequence(3)), 300, count=1, iteration=None)[0]
    return float((np.abs(actions - policy) > 1e-4).any((0, 2)).mean())


def test_noise_drives_the_first_iterations_and_a_share_of_later_ones() -> None:
    agent = agent_of(initial="coloured", initial_iterations=2, coloured_share=0.3)
    assert [driven_share(agent, iteration) for iteration in (1, 2)] == [1.0, 1.0]
    assert driven_share(agent, 3) == pytest.approx(0.3, abs=0.08)
    assert driven_share(agent, None) == 0.0


def test_without_noise_the_policy_acts_from_the_first_iteration() -> None:
    assert driven_share(agent_of(initial="policy"), 1) == 0.0


def test_noise_is_new_in_every_episode_and_trial() -> None:
    agent = agent_of(initial="coloured", constant_share=1.0)
    first, second = (episodes_of(agent, 5, iteration=1) for _ in range(2))
    assert changes(first) == [False] * 5
    assert (first[0, 0] != first[1, 0]).any(-1).all()
    assert (first[0, 0] != second[0, 0]).any(-1).all()


def test_a_scored_trial_tries_hypotheses_first_and_then_acts_on_its_own_belief() -> None:
    agent, plain = agent_of(test_episodes=1, test_interval=3), agent_of()
    actions, own = (episodes_of(one, 4, count=2, iteration=None) for one in (agent, plain))
    assert changes(actions) == [False, False, True, False, False]  # held for three steps
    state = torch.cat([torch.full((len(agent.hypotheses), 3), 0.5), agent.hypotheses], -1)
    tried = agent.learner.policy.mode(state).detach().numpy()
    for action in actions[0].reshape(-1, 2):
        assert np.isclose(action, tried, atol=1e-6).all(-1).any()
    assert len(np.unique(actions[0].reshape(-1, 2).round(5), axis=0)) > 1
    np.testing.assert_allclose(actions[1], own[1], atol=1e-6)  # what was lived meanwhile is the same here, whoever acted


def test_hypotheses_are_the_best_stored_trials_and_travel_with_a_checkpoint() -> None:
    agent = agent_of(test_episodes=2)
    assert torch.equal(agent.hypotheses, agent.replay.best_final_beliefs())
    loaded = Cemrl(agent.config, PROBLEM, np.random.SeedSequence(0), "cpu")  # without its replay
    before = episodes_of(loaded, 4, iteration=None)
    assert changes(before) == [True] * 5  # nothing is known yet: its own belief
    loaded.load_state_dict(agent.state_dict())
    np.testing.assert_array_equal(episodes_of(loaded, 4, iteration=None), episodes_of(agent, 4, iteration=None))
    assert "hypotheses" not in agent_of().state_dict()


def test_training_trials_try_no_hypotheses() -> None:
    np.testing.assert_array_equal(episodes_of(agent_of(test_episodes=2), 4), episodes_of(agent_of(), 4))
