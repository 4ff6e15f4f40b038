"""Contracts of the vector environment: the same numbers as single environments, whatever the autoreset mode."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv

# Meta-World's benchmarks are stepped by processes: test_envs_metaworld.py has shorter forms of these tests for them.
FAMILIES = [name for name in dmrlad_bench.families() if family(name).card.goal.kind != "meta_world"]
every_family = pytest.mark.parametrize("name", FAMILIES)
CHEETAH, POINT = "DMRLAD/CheetahVelSparse-v0", "DMRLAD/PointGoalSparse-v0"


def pair(name, mode, num_envs=3, **arguments) -> tuple[Any, Any]:
    """Ours and Gymnasium's `SyncVectorEnv` over single environments."""
    ours = gymnasium.make_vec(name, num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **arguments)
    reference = gymnasium.make_vec(name, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **arguments)
    return ours, reference


def actions_for(env, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def assert_same(ours, reference):
    """Equal to the last bit, types and masks included."""
    assert type(ours) is type(reference)
    if isinstance(ours, dict):
        assert set(ours) == set(reference)
        for key in ours:
            assert_same(ours[key], reference[key])
    elif isinstance(ours, tuple):
        for one, other in zip(ours, reference, strict=True):
            assert_same(one, other)
    elif ours.dtype == object:
        for one, other in zip(ours, reference, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        assert ours.dtype == reference.dtype
        np.testing.assert_array_equal(ours, reference, strict=True)


@every_family
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("task_observable", [False, True])
def test_vector_equals_single_through_autoresets(name, mode, task_observable):
    ours, reference = pair(name, mode, task_observable=task_observable)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == reference.observation_space and ours.action_space == reference.action_space
    horizon = family(name).horizon
    assert_same(ours.reset(seed=4), reference.reset(seed=4))
    actions = actions_for(ours, horizon + 20)
    for action in actions[:13]:
        assert_same(ours.step(action), reference.step(action))
    mask = np.array([False, True, False])  # from here on the episodes end at different times
    assert_same(
        ours.reset(seed=[1, 2, None], options={"reset_mask": mask}), reference.reset(seed=[1, 2, None], options={"reset_mask": mask})
    )
    for action in actions[13:]:
        assert_same(ours.step(action), reference.step(action))


@every_family
def test_disabled_autoreset_equals_single_until_the_end_then_holds(name):
    ours, reference = pair(name, AutoresetMode.DISABLED)
    horizon = family(name).horizon
    assert_same(ours.reset(seed=[8, 2, 5]), reference.reset(seed=[8, 2, 5]))
    actions = actions_for(ours, horizon)
    ended = False
    for action in actions:
        last = ours.step(action)
        if not ended:  # `SyncVectorEnv` accepts no step behind the end of an episode
            assert_same(last, reference.step(action))
        ended = bool((last[2] | last[3]).any())
    assert (last[2] | last[3]).all()
    held = ours.step(actions[0])
    np.testing.assert_array_equal(held[0], last[0])
    assert not held[1].any() and (held[2] | held[3]).all() and held[4] == {}
    ours.reset(options={"reset_mask": np.array([True, False, False])})
    observation, reward, terminated, truncated, info = ours.step(actions[0])
    np.testing.assert_array_equal(observation[1:], last[0][1:])
    assert (terminated | truncated).tolist() == [False, True, True] and not reward[1:].any()
    assert info["_success"].tolist() == [True, False, False]


@every_family
def test_threads_do_not_change_numbers(name):
    results = []
    for threads in (1, 2, 5):
        env = DMRLADVectorEnv(7, name, threads=threads)
        env.reset(seed=0)
        results.append([env.step(action)[0] for action in actions_for(env, 50)])
        env.close()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@every_family
def test_int_seed_counts_up_whatever_ran_before(name):
    env = family(name).make_vec(4)
    env.reset(seed=123)
    env.step(actions_for(env, 1)[0])
    observations, info = env.reset(seed=50)
    for row in range(4):
        single = DMRLADEnv(name)
        observation, single_info = single.reset(seed=50 + row)
        np.testing.assert_array_equal(observations[row], observation)
        np.testing.assert_array_equal(info["task"][row], single_info["task"])


@every_family
def test_choosing_tasks(name):
    task_family = family(name)
    env = task_family.make_vec(3, split="test")
    tasks = task_family.tasks("test").astype(np.float32)
    last = len(tasks) - 1
    np.testing.assert_array_equal(env.reset(options={"task": last})[1]["task"], tasks[[last, last, last]])
    np.testing.assert_array_equal(env.reset(options={"task": np.array([1, 0, last])})[1]["task"], tasks[[1, 0, last]])
    values = np.resize(task_family.tasks(task_family.splits[-1]), (3, task_family.task_dim))
    np.testing.assert_array_equal(env.reset(options={"task": values})[1]["task"], values.astype(np.float32))
    mask = np.array([False, False, True])
    env.reset(options={"task": np.array([1, 0, last - 1]), "reset_mask": mask})
    info = env.step(np.zeros((env.num_envs, env.family.action_dim)))[4]
    np.testing.assert_array_equal(info["task"], [*values[:2].astype(np.float32), tasks[last - 1]])


@pytest.mark.parametrize("name", [name for name in FAMILIES if family(name).relabelable])
def test_same_seed_same_observations_in_every_task(name):
    env = family(name).make_vec(2)
    actions = actions_for(env, 20)
    trajectories = []
    for task in (0, 1):
        env.reset(seed=[3, 4], options={"task": task})
        trajectories.append([env.step(action)[0] for action in actions])
    np.testing.assert_array_equal(*trajectories)


def test_truncates_earlier_on_request():
    env = gymnasium.make_vec(POINT, 2, vectorization_mode="vector_entry_point", max_episode_steps=3)
    env.reset(seed=0)
    assert [env.step(np.zeros((2, 2)))[3].all() for _ in range(3)] == [False, False, True]


def test_returned_arrays_are_the_callers():
    env = family(POINT).make_vec(2)
    observation, info = env.reset(seed=0)
    for array in (observation, info["task"]):
        array[:] = 100
    observation, _, terminated, truncated, info = env.step(np.zeros((2, 2)))
    np.testing.assert_array_equal(observation, 0)
    assert np.abs(info["task"]).max() <= 1
    for array in (observation, terminated, truncated, info["task"]):
        array[:] = 1
    observation, _, terminated, truncated, info = env.step(np.zeros((2, 2)))
    np.testing.assert_array_equal(observation, 0)
    assert not terminated.any() and not truncated.any()


def test_closing_ends_the_threads_and_may_be_repeated():
    env = DMRLADVectorEnv(4, CHEETAH, threads=2)
    env.reset(seed=0)
    before = _native_threads()
    env.close()
    env.close()
    assert before is None or _native_threads() == before - 2
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()


def _native_threads() -> int | None:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
    except OSError:
        return None  # not Linux


def test_step_before_reset_and_partial_first_reset():
    env = DMRLADVectorEnv(2, POINT)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))


def test_bad_input_is_one_clear_line():
    env = DMRLADVectorEnv(3, POINT)
    env.reset(seed=0)
    cases = [
        (lambda: DMRLADVectorEnv(0, POINT), "num_envs must be an integer of at least 1, got 0"),
        (lambda: DMRLADVectorEnv(2, POINT, threads=0), "threads must be an integer of at least 1, got 0"),
        (
            lambda: DMRLADVectorEnv(2, POINT, autoreset_mode="never"),
            "unknown autoreset_mode 'never'; accepted: NextStep, SameStep, Disabled",
        ),
        (lambda: DMRLADVectorEnv(2, POINT, split="holdout"), "unknown split 'holdout'; accepted: train, validation, test, ood"),
        (
            lambda: DMRLADVectorEnv(2, POINT, render_mode="human"),
            "render_mode 'human' is not supported side by side; accepted: None, rgb_array",
        ),
        (lambda: env.reset(seed=[1, 2]), "seed must be an int or a list of 3"),
        (lambda: env.reset(options={"mask": 1}), r"unknown reset option 'mask'.*; accepted: task, reset_mask"),
        (lambda: env.reset(options={"reset_mask": np.zeros(3, bool)}), "reset_mask must be a bool array"),
        (lambda: env.reset(options={"reset_mask": [True, True, True]}), "reset_mask must be a bool array"),
        (lambda: env.reset(options={"task": 80}), "task index 80 is out of range"),
        (lambda: env.reset(options={"task": [0, 1]}), "option 'task' of shape"),
        (lambda: env.reset(options={"task": [[1, 0], [1, 0], [0, 1]]}), "option 'task' of shape"),
        (lambda: env.reset(options={"task": "left"}), "option 'task' of shape"),
        (lambda: env.step(np.zeros((2, 2))), r"action of shape \(2, 2\) is not valid; accepted: 2 finite numbers for each of 3"),
    ]
    for fails, message in cases:
        with pytest.raises(CardError, match=message) as caught:
            fails()
        assert "\n" not in str(caught.value)


def test_a_bad_task_leaves_every_environment_as_it_was():
    env = DMRLADVectorEnv(2, POINT)
    env.reset(seed=0)
    tasks = env.step(np.ones((2, 2)))[4]["task"]
    with pytest.raises(CardError):
        env.reset(options={"task": np.array([0, 500])})
    observation, *_, info = env.step(np.ones((2, 2)))
    np.testing.assert_allclose(observation, 0.2)
    np.testing.assert_array_equal(info["task"], tasks)


def test_a_program_that_never_closes_still_ends():
    script = (
        "import gymnasium, dmrlad_bench; "
        f"env = gymnasium.make_vec({CHEETAH!r}, 4, vectorization_mode='vector_entry_point', threads=2); "
        "env.reset(seed=0); env.step(env.action_space.sample()); print('done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_python_threads_are_not_needed():
    before = threading.active_count()
    env = DMRLADVectorEnv(4, CHEETAH, threads=2)
    env.reset(seed=0)
    env.step(np.zeros((env.num_envs, env.family.action_dim)))
    assert threading.active_count() == before
    env.close()
