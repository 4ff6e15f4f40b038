"""More contracts over every published family: processes and threads, long random episodes, bad input, copies, closing."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import pytest

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv

every_family = pytest.mark.parametrize("name", dmrlad_bench.families())
FIRST = """
import hashlib, sys
import dmrlad_bench
from dmrlad_bench.envs.vector import DMRLADVectorEnv
for name in sys.argv[2:]:
    env = DMRLADVectorEnv(3, name, threads=int(sys.argv[1]))
    observation, info = env.reset(seed=7)
    print(hashlib.sha256(observation.tobytes() + info["task"].tobytes()).hexdigest())
    env.close()
"""


def is_ours(name):
    """Whether this package steps the family's body itself; Meta-World's classes are stepped by Meta-World, which is slow."""
    return not family(name).name.startswith("ML")


STEPPED_HERE = [name for name in dmrlad_bench.families() if is_ours(name)]
every_body_of_ours = pytest.mark.parametrize("name", STEPPED_HERE)


@pytest.mark.parametrize("threads", [1, 3])
def test_same_seed_same_tasks_and_first_observations_in_another_process(threads):
    done = subprocess.run([sys.executable, "-c", FIRST, str(threads), *STEPPED_HERE], capture_output=True, text=True, check=True)
    expected = []
    for name in STEPPED_HERE:
        env = DMRLADVectorEnv(3, name, threads=2)
        observation, info = env.reset(seed=7)
        expected.append(hashlib.sha256(observation.tobytes() + info["task"].tobytes()).hexdigest())
        env.close()
    assert done.stdout.split() == expected


@every_body_of_ours
def test_a_thousand_random_steps_stay_finite(name):
    env = DMRLADVectorEnv(5, name, threads=1)
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (200, *(env.action_space.shape or ()))):
        observation, reward, _, _, info = env.step(action)
        assert np.isfinite(observation).all() and np.isfinite(reward).all()
        for key in ("outcome", "dense_reward", "sparse_reward"):
            assert np.isfinite(info.get(key, 0.0)).all()
    env.close()


@pytest.mark.parametrize("name", [*STEPPED_HERE, "DMRLAD/ML1Reach-v0"])
def test_bad_input_is_one_clear_line_that_names_the_family(name):
    env = DMRLADEnv(name)
    env.reset(seed=0)
    count, size = len(env.family.tasks("train")), env.family.action_dim
    nonsense: dict[str, Any] = {"action": "left", "options": 3, "num_envs": 2.5}
    cases = [
        (lambda: DMRLADEnv(name, split="tset"), r"unknown split 'tset' \(did you mean 'test'\?\); accepted: "),
        (lambda: DMRLADVectorEnv(2, name, split="valid"), r"unknown split 'valid' \(did you mean 'validation'\?\); accepted: "),
        (lambda: env.step(np.zeros(size + 1)), rf"action of shape .* is not valid; accepted: {size} finite numbers"),
        (lambda: env.step(np.zeros((2, size))), r"action of shape .* is not valid"),
        (lambda: env.step(np.full(size, np.nan)), rf"is not valid; accepted: {size} finite numbers"),
        (lambda: env.step(np.full(size, np.inf)), r"is not valid"),
        (lambda: env.step(nonsense["action"]), r"is not valid; accepted: "),
        (lambda: env.reset(options=nonsense["options"]), r"reset options must be a dictionary or None, got 3"),
        (lambda: DMRLADVectorEnv(nonsense["num_envs"], name), r"num_envs must be an integer of at least 1, got 2\.5"),
        (lambda: env.reset(options={"task": count}), rf"task index {count} is out of range; accepted: an integer index 0\.\.{count - 1}"),
        (lambda: env.reset(options={"task": -1}), r"task index -1 is out of range"),
        (lambda: env.reset(options={"task": [0.0] * (env.family.task_dim + 1)}), r"is not valid; accepted: "),
        (lambda: env.reset(options={"task": np.full(env.family.task_dim, np.nan)}), r"is not valid"),
        (lambda: env.reset(options={"taks": 0}), r"unknown reset option 'taks' \(did you mean 'task'\?\); accepted: task"),
    ]
    for fails, message in cases:
        with pytest.raises(CardError, match=message) as caught:
            fails()
        assert "\n" not in str(caught.value)
        assert env.family.name in str(caught.value)


@every_body_of_ours
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"])
def test_copies_of_vector_environments_continue_the_same(name, duplicate):
    env = DMRLADVectorEnv(3, name, threads=2)
    actions = np.random.default_rng(0).uniform(-1, 1, (6, *(env.action_space.shape or ())))
    env.reset(seed=1)
    for action in actions[:3]:
        env.step(action)
    twin = duplicate(env)
    for action in actions[3:]:
        np.testing.assert_equal(env.step(action), twin.step(action))
    env.close()
    twin.close()


@every_body_of_ours
def test_closing_twice_leaves_no_threads_behind(name):
    before = None
    for _ in range(3):
        env = DMRLADVectorEnv(4, name, threads=3)
        env.reset(seed=0)
        env.step(np.zeros(env.action_space.shape or ()))
        env.close()
        env.close()
        with pytest.raises(gymnasium.error.ClosedEnvironmentError):
            env.step(np.zeros(env.action_space.shape or ()))
        before = before or _native_threads()  # from the first round on: libraries start threads of their own when first used
    assert before is None or _falls_to(before)


def _falls_to(count: int) -> bool:
    """Whether no more than `count` threads run, now or shortly: the system may list a thread for a moment after its end."""
    for _ in range(50):
        if (_native_threads() or 0) <= count:
            return True
        time.sleep(0.1)
    return False


def _native_threads() -> int | None:
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
