"""Contracts of the single environment, over every published family."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv

# Meta-World's benchmarks differ in their tasks only, and their environments are slow to make: two of them stand for all.
STOOD_FOR = {f"DMRLAD/{name}-v0" for name in ("ML1Push", "ML1PickPlace", "ML3", "ML45")}
every_family = pytest.mark.parametrize("name", [name for name in dmrlad_bench.families() if name not in STOOD_FOR])


def roll(env, actions, seed=None, options=None):
    """One episode: list of observations, list of (reward, terminated, truncated, info), reset info first."""
    observation, info = env.reset(seed=seed, options=options)
    observations, steps = [observation], [info]
    for action in actions:
        observation, *step = env.step(action)
        observations.append(observation)
        steps.append(tuple(step))
    return np.array(observations), steps


def random_actions(name, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, family(name).action_dim)).astype(np.float32)


def of_metaworld(name):
    return family(name).card.goal.kind == "meta_world"


@pytest.mark.parametrize("name", dmrlad_bench.families())
def test_gymnasium_checker(name):
    env = gymnasium.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Unbounded observations are what Gymnasium's own bodies declare too; its tests allow the same two messages.
        warnings.filterwarnings("ignore", message=r".*A Box observation space (min|max)imum value is -?infinity.*")
        check_env(env.unwrapped)


@every_family
def test_same_seed_same_episode_whatever_ran_before(name):
    actions = random_actions(name, 25)
    env = gymnasium.make(name, disable_env_checker=True)
    observations, steps = roll(env.unwrapped, actions, seed=5)
    roll(env.unwrapped, actions[:7], seed=9)
    again, steps_again = roll(env.unwrapped, actions, seed=5)
    np.testing.assert_array_equal(observations, again)
    np.testing.assert_equal(steps, steps_again)


@every_family
def test_lived_reward_is_the_pure_reward(name):
    task_family = family(name)
    env = DMRLADEnv(name)
    outcomes, tasks, lived = [], [], []
    for episode in range(3):
        env.reset(seed=episode)
        for action in random_actions(name, 30 if of_metaworld(name) else task_family.horizon, seed=episode):
            _, reward, _, _, info = env.step(action)
            outcomes.append(info["outcome"])
            tasks.append(info["task"])
            lived.append((reward, info["dense_reward"], info["sparse_reward"], info["success"]))
    outcome, task = np.array(outcomes), np.array(tasks)
    assert outcome.dtype == task.dtype == np.float32
    assert outcome.shape[1:] == (task_family.outcome_dim,) and task.shape[1:] == (task_family.task_dim,)
    functions = (task_family.reward, task_family.dense_reward, task_family.sparse_reward, task_family.success)
    for function, expected in zip(functions, np.array(lived, dtype=np.float64).T, strict=True):
        pure = function(outcome, task)
        np.testing.assert_array_equal(pure, expected)
        np.testing.assert_array_equal(function(torch.as_tensor(outcome), torch.as_tensor(task)).numpy(), pure)


@every_family
def test_rewards_broadcast(name):
    task_family = family(name)
    generator = np.random.default_rng(0)
    outcome = generator.uniform(-1, 3, (5, 1, 7, task_family.outcome_dim)).astype(np.float32)
    tasks = np.resize(task_family.tasks("train"), (4, 1, task_family.task_dim)).astype(np.float32)
    rewards = task_family.reward(outcome, tasks)
    assert rewards.shape == (5, 4, 7) and rewards.dtype == np.float32
    np.testing.assert_array_equal(rewards[2, 3], task_family.reward(outcome[2, 0], tasks[3]))


@every_family
def test_own_reward_is_one_of_the_twins(name):
    env = DMRLADEnv(name)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(random_actions(name, 1)[0])
    assert reward == info["sparse_reward" if env.family.card.reward.kind == "sparse" else "dense_reward"]


@every_family
def test_task_never_shows_in_observations(name):
    actions = random_actions(name, 20)
    env = DMRLADEnv(name)
    first, steps = roll(env, actions, seed=3, options={"task": 0})
    second, other_steps = roll(env, actions, seed=3, options={"task": len(env.family.tasks("train")) - 1})
    shown = len(first) if family(name).relabelable else 1  # where tasks are physics, what follows depends on them
    if of_metaworld(name):  # there, where objects start is part of the task and seen: only the goal is hidden
        assert not first[:, -3:].any() and not second[:, -3:].any()
        return
    np.testing.assert_array_equal(first[:shown], second[:shown])
    assert not np.array_equal(steps[0]["task"], other_steps[0]["task"])
    test, _ = roll(DMRLADEnv(name, split="test"), actions, seed=3)
    np.testing.assert_array_equal(first[:shown], test[:shown])


@every_family
def test_observable_task_is_appended(name):
    actions = random_actions(name, 5)
    hidden, _ = roll(DMRLADEnv(name), actions, seed=3)
    env = DMRLADEnv(name, task_observable=True)
    shown, steps = roll(env, actions, seed=3)
    dim = env.family.observation_dim
    assert env.observation_space.shape == (dim + env.family.task_dim,)
    np.testing.assert_array_equal(shown[:, :dim], hidden)
    np.testing.assert_array_equal(shown[:, dim:], np.tile(steps[0]["task"], (6, 1)))


@every_family
def test_choosing_the_task(name):
    task_family = family(name)
    tasks = task_family.tasks("test").astype(np.float32)
    chosen, other = 1, len(tasks) - 2
    env = DMRLADEnv(name, split="test", task=chosen)
    np.testing.assert_array_equal(env.reset(seed=0)[1]["task"], tasks[chosen])
    np.testing.assert_array_equal(env.reset(options={"task": 0})[1]["task"], tasks[0])
    np.testing.assert_array_equal(env.reset(options={"task": np.int64(other)})[1]["task"], tasks[other])
    beyond = task_family.tasks(task_family.splits[-1])[0]
    np.testing.assert_array_equal(env.reset(options={"task": beyond})[1]["task"], beyond.astype(np.float32))
    np.testing.assert_array_equal(env.reset(options={})[1]["task"], tasks[chosen])
    value = task_family.tasks("train")[-1].tolist()
    np.testing.assert_array_equal(DMRLADEnv(name, task=value).reset()[1]["task"], np.float32(value))


@pytest.mark.parametrize("name", [name for name in dmrlad_bench.families() if not of_metaworld(name)])  # test_envs_metaworld.py has theirs
def test_tasks_are_drawn_uniformly_from_the_split(name):
    env = DMRLADEnv(name, split="test")
    tasks, copies = np.unique(env.family.tasks("test").astype(np.float32), axis=0, return_counts=True)
    env.reset(seed=0)
    drawn = np.array([env.reset()[1]["task"] for _ in range(20 * copies.sum())])
    counts = (drawn[:, None] == tasks[None]).all(axis=2).sum(axis=0)
    assert counts.sum() == len(drawn)
    chi_squared = ((counts - 20 * copies) ** 2 / (20 * copies)).sum()
    assert chi_squared < 2.5 * len(tasks)  # expectation: number of tasks - 1


@every_family
def test_truncated_at_the_horizon_and_only_there(name):
    env = DMRLADEnv(name)
    _, steps = roll(env, random_actions(name, env.family.horizon), seed=0)
    assert [truncated for _, _, truncated, _ in steps[1:]] == [False] * (env.family.horizon - 1) + [True]
    assert gymnasium.spec(name).max_episode_steps == env.family.horizon


@every_family
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_copies_continue_the_same(name, duplicate):
    actions = random_actions(name, 12)
    env = DMRLADEnv(name)
    roll(env, actions[:5], seed=1)
    twin = duplicate(env)
    for action in actions[5:]:
        np.testing.assert_equal(env.step(action), twin.step(action))
    np.testing.assert_equal(env.reset(), twin.reset())


@every_family
def test_actions_are_clipped(name):
    env = DMRLADEnv(name)
    beyond, steps = roll(env, np.full((5, env.family.action_dim), 7.0), seed=0)
    limit, limit_steps = roll(env, np.ones((5, env.family.action_dim)), seed=0)
    np.testing.assert_array_equal(beyond, limit)
    np.testing.assert_equal(steps, limit_steps)


@every_family
def test_closing_twice_and_stepping_before_reset(name):
    env = DMRLADEnv(name)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(env.family.action_dim))
    env.reset(seed=0)
    env.close()
    env.close()


def test_bad_input_is_one_clear_line():
    name = "DMRLAD/CheetahVelSparse-v0"
    env = DMRLADEnv(name)
    env.reset(seed=0)
    cases = [
        (lambda: DMRLADEnv(name, split="tset"), r"unknown split 'tset' \(did you mean 'test'\?\); accepted: train, validation, test, ood"),
        (lambda: DMRLADEnv(name, task=50), r"task index 50 is out of range; accepted: an integer index 0\.\.49"),
        (lambda: DMRLADEnv(name, render_mode="film"), r"unknown render_mode 'film'; accepted: None, human, rgb_array"),
        (lambda: DMRLADEnv("DMRLAD/CheetahVelSpares-v0"), r"did you mean 'CheetahVelSparse'"),
        (lambda: env.reset(options={"tsk": 1}), r"unknown reset option 'tsk' \(did you mean 'task'\?\); accepted: task"),
        (lambda: env.reset(options={"task": -1}), r"task index -1 is out of range"),
        (lambda: env.reset(options={"task": [1.0, 2.0]}), r"task \[1\.0, 2\.0\] is not valid"),
        (lambda: env.reset(options={"task": float("nan")}), r"task nan is not valid"),
        (lambda: env.reset(options={"task": True}), r"task True is not valid"),
        (lambda: env.reset(options={"task": "fast"}), r"task 'fast' is not valid"),
        (lambda: env.reset(options={"task": [[1.0], [1.0, 2.0]]}), r"is not valid"),
        (lambda: env.step(np.zeros(5)), r"action of shape \(1, 5\) is not valid; accepted: 6 finite numbers"),
        (lambda: env.step(np.full(6, np.nan)), r"is not valid; accepted: 6 finite numbers"),
    ]
    for fails, message in cases:
        with pytest.raises(CardError, match=message) as caught:
            fails()
        assert "\n" not in str(caught.value)
        assert "CheetahVel" in str(caught.value)


def test_cheetah_is_gymnasiums_half_cheetah():
    """Independent reference: Gymnasium's own environment, its warm start removed before every step."""
    reference: Any = gymnasium.make("HalfCheetah-v5", disable_env_checker=True).unwrapped
    env = DMRLADEnv("DMRLAD/CheetahVelSparse-v0")
    observation, _ = env.reset(seed=11)
    state = env._episodes._state[0]
    reference.reset(seed=0)
    reference.set_state(state[1:10], state[10:19])
    np.testing.assert_array_equal(observation, np.concatenate((reference.data.qpos[1:], reference.data.qvel)))
    assert env.observation_space == reference.observation_space
    for action in random_actions("DMRLAD/CheetahVelSparse-v0", 200):
        reference.data.qacc_warmstart[:] = 0
        expected, _, _, _, expected_info = reference.step(action)
        observation, _, _, _, info = env.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert info["outcome"][0] == np.float32(expected_info["x_velocity"])
        np.testing.assert_allclose(info["outcome"][1], np.sum(np.square(action)), rtol=1e-6)


def test_cheetah_starts_with_gymnasiums_noise():
    env = DMRLADEnv("DMRLAD/CheetahVelSparse-v0")
    env.reset(seed=0)
    starts = np.array([env.reset()[0] for _ in range(2000)])
    model = pytest.importorskip("mujoco").MjModel.from_xml_path(gymnasium.__path__[0] + "/envs/mujoco/assets/half_cheetah.xml")
    offset = starts[:, :8] - model.qpos0[1:]
    assert np.abs(offset).max() <= 0.1 and offset.max() > 0.099 and abs(offset.mean()) < 0.002
    np.testing.assert_allclose(starts[:, 8:].std(axis=0), 0.1, rtol=0.1)


def test_point_moves_a_tenth_of_the_action():
    env = DMRLADEnv("DMRLAD/PointGoalSparse-v0")
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, [0.0, 0.0])
    observation, _, _, _, info = env.step(np.array([1.0, -0.5]))
    np.testing.assert_allclose(observation, [0.1, -0.05])
    np.testing.assert_allclose(info["outcome"], [0.1, -0.05, 1.25], rtol=1e-6)


def test_import_is_light():
    script = (
        "import sys, dmrlad_bench; "
        "print([name for name in ('torch', 'metaworld', 'mujoco') if name in sys.modules]); "
        "import gymnasium; gymnasium.make(dmrlad_bench.families()[0]).reset(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
