"""The wrappers for other people's learners: a trial as one long episode, and RL2's observations."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.utils.env_checker import check_env

import dmrlad_bench
from dmrlad_bench import RL2Observation, TrialWrapper
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family

POINT = "DMRLAD/PointGoalSparse-v0"
every_family = pytest.mark.parametrize("name", dmrlad_bench.families())


class Corridor(gymnasium.Env[np.ndarray, np.ndarray]):
    """Three float32 steps to the end; nothing to do with a task family."""

    observation_space = Box(0.0, 3.0, (1,), np.float32)
    action_space = Box(0.5, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0.0
        return np.array([self.place], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1.0
        return np.array([self.place], np.float32), 10 * self.place, self.place == 3.0, False, {}


def actions_of(name: str, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, family(name).action_dim)).astype(np.float32)


def lived(env: gymnasium.Env, actions: np.ndarray, **reset: Any) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """Observations `(steps + 1, dim)` and what else the steps gave, until the end comes; the reset's info comes first."""
    observation, info = env.reset(**reset)
    observations: list[np.ndarray] = [observation]
    steps: list[tuple[Any, ...]] = [(info,)]
    for action in actions:
        observation, *step = env.step(action)
        observations.append(observation)
        steps.append(tuple(step))
        if step[1] or step[2]:
            break
    return np.array(observations), steps


def composed(name: str, episodes: int = 3) -> gymnasium.Env:
    return RL2Observation(TrialWrapper(gymnasium.make(name, split="test"), episodes=episodes))


@every_family
@pytest.mark.parametrize(
    "wrap", [lambda env: TrialWrapper(env, 2, append_flag=True), RL2Observation, lambda env: RL2Observation(TrialWrapper(env))]
)
def test_gymnasium_checker(name, wrap):
    env = wrap(gymnasium.make(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=r".*A Box observation space (min|max)imum value is -?infinity.*")
        warnings.filterwarnings("ignore", message=r".*is different from the unwrapped version.*")
        check_env(env)


@every_family
def test_a_trial_is_its_episodes_one_after_the_other(name):
    """The same as resetting the family's own environment by hand, from the same seed, in the same task."""
    horizon = family(name).horizon
    actions = actions_of(name, 2 * horizon)
    env, plain = TrialWrapper(gymnasium.make(name), episodes=2), gymnasium.make(name)
    observations, steps = lived(env, actions, seed=3)
    first, first_steps = lived(plain, actions[:horizon], seed=3)
    length = len(first_steps) - 1  # some bodies fall
    second, second_steps = lived(plain, actions[length : length + horizon], options={"task": first_steps[0][0]["task"]})
    np.testing.assert_array_equal(observations, np.concatenate([first[:-1], second]))
    np.testing.assert_array_equal(steps[length][3]["final_obs"], first[-1])
    plain_steps = first_steps[1:] + second_steps[1:]
    assert [reward for reward, *_ in steps[1:]] == [reward for reward, *_ in plain_steps]
    for number, ((_, terminated, truncated, info), plain_step) in enumerate(zip(steps[1:], plain_steps, strict=True), 1):
        assert (terminated or truncated) == (number == len(plain_steps))
        assert info["episode_over"] == (number in (length, len(plain_steps)))
        assert info["trial_episode"] == (number > length)
        np.testing.assert_array_equal(info["task"], plain_step[3]["task"])


@every_family
def test_a_seed_fixes_the_whole_trial_whatever_ran_before(name):
    horizon = family(name).horizon
    actions = actions_of(name, 2 * horizon)
    env = composed(name, episodes=2)
    once, steps = lived(env, actions, seed=5)
    lived(env, actions[: horizon + 3], seed=9)
    again, again_steps = lived(env, actions, seed=5)
    np.testing.assert_array_equal(once, again)
    np.testing.assert_equal(steps, again_steps)
    others = [env.reset(seed=seed)[1]["task"] for seed in range(6, 20)]
    assert any(not np.array_equal(task, steps[0][0]["task"]) for task in others)


def test_trials_draw_tasks_anew_and_episodes_begin_anew() -> None:
    env = TrialWrapper(gymnasium.make(POINT), episodes=2)
    tasks = set()
    for trial in range(5):
        _, steps = lived(env, actions_of(POINT, 40), **({"seed": 0} if trial == 0 else {}))
        tasks.add(tuple(steps[0][0]["task"]))
        assert all(tuple(info["task"]) in tasks for *_, info in steps[1:])
    assert len(tasks) == 5
    _, info = env.reset(options={"task": 7})
    np.testing.assert_array_equal(info["task"], family(POINT).tasks("train")[7].astype(np.float32))


def test_the_flag_is_appended_where_it_is_asked_for() -> None:
    env = TrialWrapper(gymnasium.make(POINT), episodes=2, append_flag=True)
    observations, _ = lived(env, actions_of(POINT, 40), seed=0)
    expected = np.zeros(41)
    expected[[20, 40]] = 1.0
    np.testing.assert_array_equal(observations[:, -1], expected)
    assert observations.shape[1:] == env.observation_space.shape == (3,)
    bare, _ = lived(TrialWrapper(gymnasium.make(POINT), episodes=2), actions_of(POINT, 40), seed=0)
    np.testing.assert_array_equal(observations[:, :-1], bare)


@every_family
def test_rl2_observations_hold_the_step_before(name):
    sizes = (family(name).observation_dim, family(name).action_dim)
    actions = 1.5 * actions_of(name, 2 * family(name).horizon)  # beyond what is clipped
    bare, steps = lived(TrialWrapper(gymnasium.make(name, split="test"), episodes=2), actions, seed=1)
    env = composed(name, episodes=2)
    observations, _ = lived(env, actions, seed=1)
    observation, action, reward, done = np.split(observations, np.cumsum([*sizes, 1]), axis=1)
    np.testing.assert_array_equal(observation, bare)
    np.testing.assert_array_equal(action, np.concatenate([np.zeros((1, sizes[1])), np.clip(actions[: len(steps) - 1], -1, 1)]))
    np.testing.assert_array_equal(reward[:, 0], [0.0, *(step[0] for step in steps[1:])])
    assert np.flatnonzero(done).tolist() == [number for number, step in enumerate(steps) if number and step[3]["episode_over"]]
    assert done.sum() == 2
    assert all(env.observation_space.contains(entry) for entry in observations)
    following, _ = env.reset()
    assert not following[sizes[0] :].any()


def test_rl2_observations_of_any_environment_keep_its_dtype_and_space() -> None:
    env = RL2Observation(Corridor())
    observations, _ = lived(env, np.array([[0.5], [1.0], [5.0]], np.float32), seed=0)
    np.testing.assert_array_equal(observations, [[0, 0, 0, 0], [1, 0.5, 10, 0], [2, 1, 20, 0], [3, 2, 30, 1]])
    assert observations.dtype == np.float32 and all(env.observation_space.contains(entry) for entry in observations)
    np.testing.assert_array_equal(env.observation_space.low, [0, 0, -np.inf, 0])  # pyright: ignore[reportAttributeAccessIssue]


def test_no_step_outside_a_trial() -> None:
    env = TrialWrapper(gymnasium.make(POINT), episodes=1)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros(2, np.float32))
    lived(env, actions_of(POINT, 20), seed=0)
    with pytest.raises(ResetNeeded, match="reset"):
        env.step(np.zeros(2, np.float32))
    env.reset()
    env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize("episodes", [0, -1, 1.5, "3", True, None])
def test_wrong_numbers_of_episodes_are_refused(episodes):
    with pytest.raises(CardError, match=r"TrialWrapper: episodes must be an integer of at least 1, got "):
        TrialWrapper(gymnasium.make(POINT), episodes=episodes)


def test_environments_that_cannot_be_wrapped_are_refused() -> None:
    with pytest.raises(CardError, match="TrialWrapper: expected an environment of a task family"):
        TrialWrapper(Corridor())
    discrete = Corridor()
    discrete.action_space = Discrete(2)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(CardError, match=r"RL2Observation: action space must be a one-dimensional Box of floats, got Discrete\(2\)"):
        RL2Observation(discrete)
    image = Corridor()
    image.observation_space = Box(0, 255, (4, 4, 3), np.uint8)
    with pytest.raises(CardError, match="RL2Observation: observation space"):
        RL2Observation(image)


def test_a_wrapped_environment_is_made_again_from_its_spec_and_copied_by_pickling() -> None:
    env = composed(POINT, episodes=2)
    assert env.spec is not None
    expected, _ = lived(env, actions_of(POINT, 40), seed=2)
    for other in (gymnasium.make(env.spec), pickle.loads(pickle.dumps(composed(POINT, episodes=2)))):
        np.testing.assert_array_equal(lived(other, actions_of(POINT, 40), seed=2)[0], expected)


def test_a_trial_side_by_side_in_gymnasium_s_vector_environment() -> None:
    envs = gymnasium.make_vec(POINT, 3, vectorization_mode="sync", wrappers=[TrialWrapper, RL2Observation])
    observations, _ = envs.reset(seed=4)
    actions = actions_of(POINT, 25)
    rows = [observations[1]]
    for action in actions:
        observations, *_ = envs.step(np.tile(action, (3, 1)))
        rows.append(observations[1])
    single = RL2Observation(TrialWrapper(gymnasium.make(POINT)))
    np.testing.assert_array_equal(rows, lived(single, actions, seed=5)[0])
    envs.close()
