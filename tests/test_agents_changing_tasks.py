"""Learning where tasks change inside episodes, and where they are physics: what is stored, and what relabelling makes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dmrlad_bench.cards import register_folder
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.harness.agent import make_agent
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.collect import Environments, roll_out

TINY = ("schedule.policy_updates=2", "schedule.replay_trials=600")


def learnt(path: Any, agent: str, iterations: int = 2) -> tuple[Any, TaskFamily]:
    """An agent that has learnt from trials of six tasks, or of as many as there are."""
    config, _ = plan(agent, path, budget="smoke", seed=0, device="cpu", overrides=TINY, threads=1)
    solved = TaskFamily(config.family)
    learner: Any = make_agent(config, solved)
    tasks = np.arange(min(6, len(solved.tasks("train"))))
    environments, generator = Environments(solved, learner.task_observable, 1), np.random.default_rng(0)
    for iteration in range(1, iterations + 1):
        rolled = roll_out(
            environments, learner, "train", tasks, episodes=1, generator=generator, deterministic=False,
            training_iteration=iteration, keep=True,
        )  # fmt: skip
        assert rolled.trials is not None
        metrics = learner.learn(rolled.trials)
        assert np.isfinite(list(metrics.values())).all()
    environments.close()
    return learner, solved


def short(folder: Any, name: str, **values: Any) -> Any:
    """The card's file with other values."""
    lines = (register_folder("envs") / f"{name}.toml").read_text().split("\n")
    path = folder / f"{name}.toml"
    path.write_text("\n".join(f"{key} = {values[key]}" if (key := line.split(" = ")[0]) in values else line for line in lines))
    return path


@pytest.mark.parametrize("agent", ["dmrlad", "pearl-hfr", "dmrlad-random-relabel"])
def test_copies_hold_the_rewards_of_their_own_sequence(tmp_path, agent):
    path = short(tmp_path, "CheetahVelNonStationary", horizon=30, every=0.02, spread=0.02)
    learner, solved = learnt(path, agent)
    data, size = learner.replay.data, learner.replay.size
    tasks = torch.as_tensor(solved.tasks("train"), dtype=torch.float32)
    sequence = data["task_sequence"][:size]
    assert (sequence.diff(dim=1) != 0).any(dim=1).all()
    torch.testing.assert_close(solved.reward(data["outcome"][:size], tasks[sequence]), data["reward"][:size], rtol=0, atol=0)
    assert (sequence[:, 0] == data["task_index"][:size]).all()
    copies = data["copy"][:size].nonzero().flatten().tolist()
    assert len(copies) >= 12
    for copied in copies:
        same = (data["outcome"][:size] == data["outcome"][copied]).all(dim=2).all(dim=1) & ~data["copy"][:size]
        (original,) = same.nonzero().flatten().tolist()
        offset = (sequence[copied] - sequence[original]) % len(tasks)
        assert (offset == offset[0]).all()  # every segment moves on by as many tasks as the first
    restored = make_agent(plan(agent, path, budget="smoke", seed=0, device="cpu", overrides=TINY, threads=1)[0], solved)
    restored.replay.add_shard(learner.replay.shard(torch.arange(size)))  # type: ignore[attr-defined]
    for name, stored in restored.replay.data.items():  # type: ignore[attr-defined]
        torch.testing.assert_close(stored[:size], data[name][:size], rtol=0, atol=0)


@pytest.mark.parametrize("agent", ["dmrlad", "pearl-hfr"])
def test_where_tasks_are_physics_no_copies_are_stored(tmp_path, agent):
    learner, solved = learnt(short(tmp_path, "CheetahRandMass", horizon=20), agent)
    assert not solved.relabelable and learner.relabeller is None
    assert learner.replay.size == 12 and not learner.replay.data["copy"].any()


def test_constant_tasks_store_no_sequence(tmp_path):
    learner, _ = learnt(short(tmp_path, "CheetahVel", horizon=20), "dmrlad", iterations=1)
    assert "task_sequence" not in learner.replay.data


@pytest.mark.parametrize("agent", ["oracle", "rl2", "cemrl"])
@pytest.mark.parametrize("name", ["CheetahDirContinual", "WalkerRandParamsNonStationary"])
def test_every_kind_of_agent_learns(tmp_path, agent, name):
    learner, solved = learnt(short(tmp_path, name, horizon=20, every=5.0, spread=2.0), agent, iterations=1)
    assert solved.tasks_change and learner.gradient_updates > 0
