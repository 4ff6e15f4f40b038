"""The bar for families and agents: every learning algorithm runs to its result on every registered family.

Sizes are cut: two tasks at first (so that often no task is met), two an iteration, two iterations, a few updates, one task a split scored.
Horizons are cut as well, and tasks that change inside an episode change sooner, so that they do. Every phase of an iteration runs.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from program import refused

import dmrlad_bench
from dmrlad_bench.cards import family_names, load_family, register_folder

AGENTS = ("dmrlad", "cemrl-hfr", "pearl", "rl2", "oracle", "thompson", "task-posterior")
JUDGING = ("thompson", "task-posterior")  # judge one task of a whole trial by rewards: they refuse the families of CHANGING and SAME_REWARD
CHANGING = {
    "AntDirNonStationary",
    "AntVelNonStationary",
    "CheetahDirContinual",
    "CheetahDirNonStationary",
    "CheetahVelNonStationary",
    "HopperVelNonStationary",
    "WalkerRandParamsNonStationary",
    "WalkerVelNonStationary",
}
SAME_REWARD = {"CheetahRandMass", "HopperRandParams", "WalkerRandParams", "ML1Reach", "ML1Push", "ML1PickPlace", "ML3", "ML10", "ML45"}
PAIRS = [(agent, family) for agent in AGENTS for family in family_names() if agent not in JUDGING or family not in CHANGING | SAME_REWARD]
PAIRS += [("blind", family) for family in ("PointGoalSparse", "CheetahVelNonStationary", "WalkerRandParams", "ML10")]  # cemrl, but less
HORIZON = 30
CHANGING_HORIZON = 60
SOONER = {"every": {"place": 0.05, "time": 15}, "spread": {"place": 0.05, "time": 5}}  # m, steps
SIZES = {
    "schedule.iterations": 2,
    "schedule.initial_tasks": 2,
    "schedule.tasks_per_iteration": 2,
    "schedule.evaluation_interval": 2,
    "schedule.evaluation_tasks": 1,
    "schedule.final_tasks": 1,
    "schedule.policy_updates": 2,
}


def cut_card(name: str, folder: Path) -> Path:
    """The family's card with a short horizon, as a file."""
    path = folder / f"{name}.toml"
    text = (register_folder("envs") / f"{name}.toml").read_text(encoding="utf-8")
    card = load_family(name)
    horizon = HORIZON if card.changes is None else CHANGING_HORIZON
    text = re.sub(r"^horizon = (\d+)", lambda found: f"horizon = {min(horizon, int(found[1]))}", text, flags=re.MULTILINE)
    if card.changes is not None:
        for key, value in SOONER.items():
            text = re.sub(rf"^{key} = .*", f"{key} = {value[card.changes.kind]}", text, flags=re.MULTILINE)
        path.write_text(text, encoding="utf-8")
        assert load_family(path).changes != card.changes
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("agent", "family"), PAIRS)
def test_every_agent_runs_on_every_family(agent: str, family: str, tmp_path: Path) -> None:
    overrides = [f"{key}={value}" for key, value in SIZES.items()]
    if agent in ("dmrlad", "cemrl-hfr"):
        overrides.append("schedule.reconstruction_updates=2")
    seed = ((*AGENTS, "blind").index(agent) + family_names().index(family)) % 2
    run = dmrlad_bench.train(
        agent, cut_card(family, tmp_path), budget="smoke", seed=seed, device="cpu", threads=1, out=tmp_path, overrides=overrides, quiet=True
    )
    result = run.result
    assert result.iterations == 2 and result.gradient_updates > 0 and result.environment_steps > 0
    splits = {(matrix.split, matrix.deterministic) for matrix in result.final}
    assert {("test", True), ("test", False), ("train", True)} <= splits
    for matrix in result.final:
        assert np.isfinite(np.array(matrix.returns)).all()
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("family", sorted(CHANGING | SAME_REWARD))
@pytest.mark.parametrize("agent", JUDGING)
def test_agents_that_judge_tasks_by_rewards_say_where_they_cannot(
    agent: str, family: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    message = refused(capsys, "run", "--agent", agent, "--env", family, "--budget", "smoke", "--out", tmp_path / "runs")
    why = "the task changes inside an episode" if family in CHANGING else "the reward of a transition does not depend on the task"
    assert f"agent '{agent}'" in message and f"in DMRLAD/{family}-v0 {why}" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("family", ["PointGoal", "CheetahVelSparse", "WalkerRandParams"])
def test_an_agent_that_cannot_play_a_family_says_so_in_one_line(family: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    message = refused(capsys, "run", "--agent", "scripted", "--env", family, "--budget", "smoke", "--out", tmp_path)
    assert "scripted" in message and family in message
