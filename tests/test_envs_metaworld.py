"""Meta-World's benchmarks: tasks, seeds, reward and success as Meta-World's, processes, copies."""

from __future__ import annotations

import copy
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from test_envs_vector import assert_same

from dmrlad_bench.agents.simple import ScriptedAgent
from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.bodies import Point
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.envs.metaworld import CLASSES
from dmrlad_bench.envs.metaworld_episodes import MetaWorldEpisodes
from dmrlad_bench.envs.metaworld_simulators import STATE
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv
from dmrlad_bench.harness.collect import Environments, roll_out

BENCHMARKS = ("ML1Reach", "ML1Push", "ML1PickPlace", "ML3", "ML10", "ML45")


def short(folder: Path, name: str, horizon: int = 6, reward: str = "dense") -> TaskFamily:
    """The family with a short horizon and the reward asked for: a card changed in two lines."""
    text = (register_folder("envs") / f"{name}.toml").read_text()
    text = text.replace("horizon = 500", f"horizon = {horizon}").replace('kind = "dense"', f'kind = "{reward}"')
    path = folder / f"{name}.toml"
    path.write_text(text)
    return family(path)


def scenes(tasks: np.ndarray) -> set[str]:
    return {CLASSES[int(number)] for number in tasks[:, 0]}


def test_scenes_are_metaworlds() -> None:
    from metaworld import env_dict

    assert [f"{name}-v3" for name in CLASSES] == list(env_dict.ALL_V3_ENVIRONMENTS)
    for name, own in (("ML10", env_dict.ML10_V3), ("ML45", env_dict.ML45_V3)):
        for split in ("train", "test"):
            tasks = family(name).tasks(split)
            assert {f"{scene}-v3" for scene in scenes(tasks)} == set(own[split])
            assert (np.bincount(tasks[:, 0].astype(int), minlength=50)[np.unique(tasks[:, 0]).astype(int)] == 50).all()
        assert not scenes(family(name).tasks("train")) & scenes(family(name).tasks("test"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_train_and_test_share_no_task(name: str) -> None:
    """Meta-World's own registered environments serve training tasks as test tasks and the reverse."""
    train, test = (family(name).tasks(split).astype(np.float32) for split in ("train", "test"))
    assert not {tuple(task) for task in train.tolist()} & {tuple(task) for task in test.tolist()}
    if name in ("ML1Reach", "ML1Push", "ML1PickPlace", "ML3"):  # same scenes, so the goals must differ
        assert not {tuple(task) for task in train[:, [0, 4, 5]].tolist()} & {tuple(task) for task in test[:, [0, 4, 5]].tolist()}


def test_tasks_are_those_of_the_benchmark_object() -> None:
    import metaworld

    benchmark = metaworld.ML1("reach-v3", seed=1)
    for split, tasks in (("train", benchmark.train_tasks), ("test", benchmark.test_tasks)):
        drawn = np.array([pickle.loads(task.data)["rand_vec"] for task in tasks])
        np.testing.assert_allclose(family("ML1Reach").tasks(split)[:, 1:], drawn, atol=5.1e-7)
        np.testing.assert_array_equal(family("ML1Reach").tasks(split)[:, 0], CLASSES.index("reach"))


def test_episodes_are_metaworlds_own() -> None:
    """Push of ML1: observations, reward and success of Meta-World's environment, set to the same task."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    env = DMRLADEnv("ML1Push")
    observation, info = env.reset(seed=0, options={"task": 3})
    reference: Any = ALL_V3_ENVIRONMENTS["push-v3"]()
    data = {"rand_vec": info["task"][1:].astype(np.float64), "env_cls": type(reference), "partially_observable": True}
    reference.set_task(Task("push-v3", pickle.dumps(data)))
    np.testing.assert_array_equal(observation, reference.reset()[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 4)):
        expected, reward, _, _, expected_info = reference.step(action)
        observation, own, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert own == np.float32(reward) == info["dense_reward"] and info["success"] == bool(expected_info["success"])
        assert info["sparse_reward"] == float(info["success"]) and not terminated and not truncated


def test_sparse_by_its_card(tmp_path: Path) -> None:
    env = DMRLADEnv(short(tmp_path, "ML1Reach", reward="sparse"))
    assert env.family.card.reward.kind == "sparse" and env.family.digest != family("ML1Reach").digest
    env.reset(seed=0)
    _, reward, _, _, info = env.step(np.zeros(4))
    assert reward == info["sparse_reward"] == 0.0 and info["dense_reward"] > 0
    succeeded = np.array([3.0, 1.0, 0.5])
    assert env.family.reward(succeeded, env.family.tasks("train")[0]) == 1.0 and env.family.success(succeeded, env.family.tasks("train")[0])


def test_labels_and_relabelling() -> None:
    for name in BENCHMARKS:
        assert not family(name).relabelable
    assert family("ML1Reach").task_classes("train") is None
    train, test = (family("ML10").task_classes(split) for split in ("train", "test"))
    assert train is not None and test is not None
    np.testing.assert_array_equal(np.bincount(train), np.full(10, 50))
    np.testing.assert_array_equal(np.unique(test), np.arange(10, 15))


def test_roll_outs_in_groups_are_one_roll_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta-World's families limit how many environments run side by side; here the point's, where nothing is drawn in an episode."""
    solved, task_index = family("PointGoalSparse"), np.arange(7)
    agent = ScriptedAgent(lambda observation: observation[:, 2:] / 5)
    options: dict[str, Any] = {"episodes": 2, "deterministic": True, "keep": True}
    rolled = []
    for widest in (None, 3):
        monkeypatch.setattr(Point, "widest", widest)
        generator = np.random.default_rng(0)
        rolled.append(roll_out(Environments(solved, True, 1), agent, "train", task_index, generator=generator, **options))
    whole, grouped = rolled
    assert whole.trials is not None and grouped.trials is not None and len(grouped.trials) == 7
    for one, other in ((whole, grouped), (whole.trials, grouped.trials)):
        for key, value in vars(one).items():
            if key != "trials":
                np.testing.assert_array_equal(value, getattr(other, key))


class Silent:
    """Simulators that simulate nothing, to look at draws."""

    def begin(self, row: int, task: np.ndarray) -> None:
        """Nothing starts."""

    def started(self) -> dict[int, np.ndarray]:
        return {}

    def step(self, rows: Sequence[int], actions: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), STATE))

    def close(self) -> None:
        """Nothing to free."""


def test_tasks_are_drawn_uniformly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MetaWorldEpisodes, "_ready", lambda self: Silent())
    env = DMRLADEnv("ML10", split="test")
    env.reset(seed=0)
    tasks = env.family.tasks("test").astype(np.float32)
    drawn = np.array([env.reset()[1]["task"] for _ in range(20 * len(tasks))])
    counts = (drawn[:, None] == tasks[None]).all(axis=2).sum(axis=0)
    assert counts.sum() == len(drawn) and ((counts - 20) ** 2 / 20).sum() < 1.5 * len(tasks)


def test_processes_give_the_numbers_of_single_environments(tmp_path: Path) -> None:
    """Several scenes at once, and episodes that follow each other in other scenes, in both autoreset modes."""
    solved = short(tmp_path, "ML3")
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3, 4)).astype(np.float32)
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        ours = DMRLADVectorEnv(3, solved, threads=2, autoreset_mode=mode)
        reference = SyncVectorEnv([lambda: DMRLADEnv(solved)] * 3, autoreset_mode=mode)
        observation, info = ours.reset(seed=7)
        assert_same((observation, info), reference.reset(seed=7))
        assert len(scenes(info["task"])) > 1
        for action in actions:
            assert_same(ours.step(action), reference.step(action))
        pids = [process.pid for process in ours._episodes._simulators._processes]  # pyright: ignore
        ours.close()
        ours.close()
        assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_an_episode_that_is_over_is_held(tmp_path: Path) -> None:
    env = short(tmp_path, "ML1Reach", horizon=3).make_vec(2, threads=1)
    env.reset(seed=0)
    for _ in range(3):
        last = env.step(np.ones((2, 4)))
    held = env.step(np.ones((2, 4)))
    np.testing.assert_array_equal(held[0], last[0])
    assert held[3].all() and not held[1].any() and held[4] == {}
    env.reset(seed=5, options={"reset_mask": np.array([True, False])})
    observation, _, _, truncated, _ = env.step(np.ones((2, 4)))
    np.testing.assert_array_equal(observation[1], last[0][1])
    assert truncated.tolist() == [False, True]
    env.close()


@pytest.mark.parametrize("scene", ["drawer-open", "sweep-into", "lever-pull"])
def test_what_ran_before_leaves_no_trace(scene: str) -> None:
    """Meta-World resets twice, and its scenes change the model: a task must start the same in a new environment and in a used one."""
    tasks = family("ML10").tasks("test")
    first, other = np.flatnonzero(tasks[:, 0] == CLASSES.index(scene))[[0, 7]].tolist()
    fresh, used = DMRLADEnv("ML10", split="test"), DMRLADEnv("ML10", split="test")
    used.reset(seed=3, options={"task": other})
    for action in np.random.default_rng(1).uniform(-1, 1, (15, 4)):
        used.step(action)
    np.testing.assert_equal(fresh.reset(seed=1, options={"task": first}), used.reset(seed=1, options={"task": first}))
    for action in np.random.default_rng(2).uniform(-1, 1, (10, 4)):
        np.testing.assert_equal(fresh.step(action), used.step(action))
    twin = copy.deepcopy(fresh)
    np.testing.assert_equal(fresh.step(np.ones(4)), twin.step(np.ones(4)))


def test_a_value_must_be_a_task_of_the_card() -> None:
    env = DMRLADEnv("ML1Reach")
    value = env.family.tasks("test")[4]
    np.testing.assert_array_equal(env.reset(options={"task": value})[1]["task"], value.astype(np.float32))
    with pytest.raises(CardError, match="accepted: an integer index, or the value of a task on the card"):
        env.reset(options={"task": value + 0.01})


def test_a_process_that_fails_or_dies_is_one_clear_line() -> None:
    env = family("ML1Reach").make_vec(2, threads=2)
    env.reset(seed=0)
    simulators: Any = env._episodes._simulators  # pyright: ignore
    with pytest.raises(RuntimeError, match="a process that runs Meta-World failed: KeyError: 9"):
        simulators.step([9], np.zeros((1, 4)))
    os.kill(simulators._processes[0].pid, signal.SIGKILL)
    simulators._processes[0].wait()
    with pytest.raises(RuntimeError, match=r"a simulator process was killed \(out of memory\?\)"):
        env.step(np.zeros((2, 4)))
    env.close()


def test_a_program_that_never_closes_leaves_no_process() -> None:
    script = (
        "from dmrlad_bench.envs.family import family; env = family('ML1Reach').make_vec(2, threads=2); env.reset(seed=0); "
        "print(*[process.pid for process in env._episodes._simulators._processes])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and re.fullmatch(r"\d+ \d+\n", done.stdout), done.stderr
    for pid in map(int, done.stdout.split()):
        assert _gone(pid)


def test_a_program_that_is_killed_leaves_no_process() -> None:
    """Nothing runs in a program that is killed: its workers must see for themselves that nobody asks any more."""
    script = (
        "from dmrlad_bench.envs.family import family; env = family('ML3').make_vec(2, threads=2); env.reset(seed=0); "
        "print(*[process.pid for process in env._episodes._simulators._processes], flush=True)\n"
        "while True: env.step(env.action_space.sample())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 2 and all(os.path.exists(f"/proc/{pid}") for pid in pids)
        program.kill()
    for pid in pids:
        assert _gone(pid)


def _gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        subprocess.run(["sleep", "0.1"], check=True)
    return False
