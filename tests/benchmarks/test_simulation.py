"""Steps per second of every body: ours, Gymnasium's `SyncVectorEnv`, Meta-World's environments, MuJoCo. Run `pytest tests/benchmarks`.

Every benchmark of ours times its baselines in the same run and puts the ratio into `extra_info`.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import dmrlad_bench  # noqa: F401  (registers the ids)
from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv

NUM_ENVS = 32
CHEETAHS = 64  # of the benchmark that performance is promised for
STEPS = 60
SINGLE_STEPS = 150
CHEETAH = "DMRLAD/CheetahVelSparse-v0"


def floor_steps(threads: int) -> int:
    """MuJoCo's own steps on `threads` threads: 5 an environment step, whole sequences of controls in one native call."""
    mujoco, rollout = pytest.importorskip("mujoco"), pytest.importorskip("mujoco.rollout")
    path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
    model = mujoco.MjModel.from_xml_path(str(path))
    data = [mujoco.MjData(model) for _ in range(threads)]
    controls = np.random.default_rng(0).uniform(-1, 1, (CHEETAHS, STEPS, model.nu)).repeat(5, axis=1)
    state = np.zeros((CHEETAHS, mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    state[:, 1 : 1 + model.nq] = model.qpos0
    with rollout.Rollout(nthread=threads if threads > 1 else 0) as native:
        native.rollout([model] * CHEETAHS, data, state, controls)
    return CHEETAHS * STEPS


def vector_steps(env: gymnasium.vector.VectorEnv) -> int:
    """Random actions in all environments."""
    env.reset(seed=0)
    for action in (
        np.random.default_rng(0).uniform(-1, 1, (STEPS, env.num_envs, *env.single_action_space.sample().shape)).astype(np.float32)
    ):
        env.step(action)
    return STEPS * env.num_envs


def single_steps(env: gymnasium.Env) -> int:
    """Random actions in one environment, which is reset where an episode ends."""
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (SINGLE_STEPS, *(env.action_space.shape or ()))).astype(np.float32):
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return SINGLE_STEPS


def rate(run: Callable[[], int], repetitions: int = 3) -> float:
    """Best steps per second."""
    best = 0.0
    for _ in range(repetitions):
        start = time.perf_counter()
        steps = run()
        best = max(best, steps / (time.perf_counter() - start))
    return best


@pytest.mark.parametrize("threads", sorted({1, available_cores()}))
def test_vector_half_cheetah(benchmark, threads):
    """Medians of rounds of ours, of Gymnasium's and of the floor in turns; in processor time too, for machines that do other things."""
    env = gymnasium.make_vec(CHEETAH, CHEETAHS, vectorization_mode="vector_entry_point", threads=threads)
    sync = gymnasium.make_vec("HalfCheetah-v5", CHEETAHS, vectorization_mode="sync")
    work = {"ours": lambda: vector_steps(env), "sync": lambda: vector_steps(sync), "floor": lambda: floor_steps(threads)}
    seconds = {name: [] for name in work}
    for _ in range(4):
        for name, run in work.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    ours, theirs, floor = (np.median(seconds[name][1:], axis=0) for name in work)
    benchmark.extra_info["steps_per_second"] = round(CHEETAHS * STEPS / ours[0])
    for column, clock in enumerate(("", "_processor_time")):
        benchmark.extra_info[f"times_sync_vector_env{clock}"] = round(float(theirs[column] / ours[column]), 2)
        benchmark.extra_info[f"share_of_mj_step_floor{clock}"] = round(float(floor[column] / ours[column]), 2)
    benchmark.pedantic(work["ours"], rounds=1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
    env.close()
    sync.close()


def test_single_half_cheetah(benchmark):
    def steps(env: gymnasium.Env) -> int:
        env.reset(seed=0)
        for action in np.random.default_rng(0).uniform(-1, 1, (150, 6)).astype(np.float32):
            env.step(action)
        return 150

    ours, theirs = gymnasium.make(CHEETAH), gymnasium.make("HalfCheetah-v5")
    benchmark.extra_info["times_half_cheetah_v5"] = 1 / rate(lambda: steps(theirs))
    benchmark(steps, ours)
    _finish(benchmark, 150)


BODIES = {  # family -> Gymnasium's environment of the same body
    "HopperVelSparse": ("Hopper-v5", {}),
    "WalkerVelSparse": ("Walker2d-v5", {}),
    "AntGoalSparse": ("Ant-v5", {"include_cfrc_ext_in_observation": False}),
    "AntVelSparse": ("Ant-v5", {"include_cfrc_ext_in_observation": False}),  # with contact forces
    "CheetahVelSparse": ("HalfCheetah-v5", {}),
}
every_body = pytest.mark.parametrize("name", BODIES)


@every_body
@pytest.mark.parametrize("threads", sorted({1, available_cores()}))
def test_vector_body(benchmark, name, threads):
    env = gymnasium.make_vec(f"DMRLAD/{name}-v0", NUM_ENVS, vectorization_mode="vector_entry_point", threads=threads)
    id, options = BODIES[name]
    sync = gymnasium.make_vec(id, NUM_ENVS, vectorization_mode="sync", **options)
    benchmark.extra_info["times_sync_vector_env"] = 1 / rate(lambda: vector_steps(sync))
    benchmark(vector_steps, env)
    _finish(benchmark)
    env.close()
    sync.close()


@every_body
def test_single_body(benchmark, name):
    id, options = BODIES[name]
    ours, theirs = gymnasium.make(f"DMRLAD/{name}-v0"), gymnasium.make(id, **options)
    benchmark.extra_info["times_gymnasium"] = 1 / rate(lambda: single_steps(theirs))
    benchmark(single_steps, ours)
    _finish(benchmark, SINGLE_STEPS)


def test_vector_point(benchmark):
    env = gymnasium.make_vec("DMRLAD/PointGoalSparse-v0", NUM_ENVS, vectorization_mode="vector_entry_point")
    sync = gymnasium.make_vec("DMRLAD/PointGoalSparse-v0", NUM_ENVS, vectorization_mode="sync")
    benchmark.extra_info["times_sync_vector_env"] = 1 / rate(lambda: vector_steps(sync))
    benchmark(vector_steps, env)
    _finish(benchmark)


ARMS = {  # family -> Meta-World's scene
    "SawyerReachSparse": "reach-v3",
    "SawyerPushSparse": "push-v3",
    "SawyerPickPlaceSparse": "pick-place-v3",
    "ML1Reach": "reach-v3",  # which runs Meta-World's own environments
}
every_arm = pytest.mark.parametrize("name", ARMS)
FEW_ENVS = 8  # an environment of Meta-World's compiles a model of its own


def metaworlds_own(scene: str) -> gymnasium.Env:
    """Meta-World's environment of a scene, at the first training task of its ML1."""
    types, scenes = pytest.importorskip("metaworld.types"), pytest.importorskip("metaworld.env_dict")
    environment: Any = scenes.ALL_V3_ENVIRONMENTS[scene]()
    task = family({"reach-v3": "ML1Reach", "push-v3": "ML1Push", "pick-place-v3": "ML1PickPlace"}[scene]).tasks("train")[0]
    data = {"rand_vec": task[1:], "env_cls": type(environment), "partially_observable": True}
    environment.set_task(types.Task(scene, pickle.dumps(data)))
    return environment


@every_arm
@pytest.mark.parametrize("threads", sorted({1, available_cores()}))
def test_vector_arm(benchmark, name, threads):
    env = DMRLADVectorEnv(FEW_ENVS, name, threads=threads)
    sync = SyncVectorEnv([lambda: DMRLADEnv(name)] * FEW_ENVS)
    benchmark.extra_info["times_sync_vector_env_of_ours"] = 1 / rate(lambda: vector_steps(sync), 2)  # models are compiled in the first
    own = metaworlds_own(ARMS[name])
    benchmark.extra_info["times_metaworld"] = 1 / rate(lambda: single_steps(own))
    benchmark.pedantic(vector_steps, (env,), rounds=3)
    _finish(benchmark, FEW_ENVS * STEPS)
    env.close()
    sync.close()


@every_arm
def test_single_arm(benchmark, name):
    ours, theirs = DMRLADEnv(name), metaworlds_own(ARMS[name])
    benchmark.extra_info["times_metaworld"] = 1 / rate(lambda: single_steps(theirs))
    benchmark.pedantic(single_steps, (ours,), rounds=3)
    _finish(benchmark, SINGLE_STEPS)
    ours.close()


def _finish(benchmark, steps: int = NUM_ENVS * STEPS) -> None:
    """Turn seconds a baseline step into ratios to it, and print them."""
    if benchmark.stats is None:  # --benchmark-disable
        return
    ours = steps / benchmark.stats.stats.min
    for name, seconds in benchmark.extra_info.items():
        benchmark.extra_info[name] = round(ours * seconds, 2)
    benchmark.extra_info["steps_per_second"] = round(ours)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")
