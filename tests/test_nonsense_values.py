"""Values that a type accepts and that make nonsense: refused where they are read, by the name of the key."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from program import refused

from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.single import DMRLADEnv


def changed(folder: Path, family: str, pattern: str, replacement: str) -> Path:
    text = (register_folder("envs") / f"{family}.toml").read_text(encoding="utf-8")
    found, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert count == 1
    path = folder / "Changed.toml"
    path.write_text(found, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("family", "pattern", "replacement", "key"),
    [
        ("CheetahVelSparse", r"^radius = .*", "radius = 1e30", "reward.radius"),
        ("CheetahVelSparse", r"^radius = .*", "radius = 5.0", "reward.radius"),
        ("CheetahVelSparse", r"^inside = .*", "inside = 1e300", "reward.inside"),
        ("CheetahVelSparse", r"^outside = .*", "outside = -1e300", "reward.outside"),
        ("CheetahVelSparse", r"^sparse_control_cost = .*", "sparse_control_cost = 1e300", "reward.sparse_control_cost"),
        ("CheetahVelSparse", r"^high = .*", "high = 1e300", "goal.high"),
        ("CheetahVelSparse", r"\[0\.07\]", "[1e300]", "tasks"),
        ("CheetahVelSparse", r"\[0\.07\]", "[0.0102000000001]", "splits must be disjoint"),
        ("CheetahVelSparse", r"^horizon = .*", "horizon = 1000000000000", "horizon"),
        ("AntGoalSparse", r"^radius = 2.0", "radius = 1e300", "goal.radius"),
        ("CheetahVelNonStationary", r"^every = .*", "every = 1e300", "changes.every"),
    ],
)
def test_a_family_card_of_nonsense_is_refused(
    family: str, pattern: str, replacement: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "run", "--agent", "random", "--env", changed(tmp_path, family, pattern, replacement), "--budget", "smoke")
    assert "Changed.toml" in message or family in message
    assert key in message


@pytest.mark.parametrize("oracle", ["5e-324", "1e-12", "0.0", "1e300"])
def test_reference_scores_that_are_no_range(oracle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "Changed.toml"
    text = (register_folder("envs") / "PointGoal.toml").read_text(encoding="utf-8").partition("[reference]")[0]
    path.write_text(f"{text}\n[reference]\nrandom = 0\nblind = 0\noracle = {oracle}\n")
    assert "reference" in refused(capsys, "envs", path)


@pytest.mark.parametrize(
    ("family", "task", "message"),
    [
        ("CheetahVelSparse", [1e300], "accepted: numbers from -1e"),
        ("CheetahRandMass", [1e300] * 7, "no physics that a body can have"),
        ("CheetahRandMass", [0.0] * 7, "no physics that a body can have"),
        ("CheetahRandMass", [-1.0] * 7, "no physics that a body can have"),
        ("CheetahVelSparse", [float("nan")], "is not valid"),
    ],
)
def test_a_task_of_nonsense_is_refused(
    family: str, task: list[float], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = DMRLADEnv(f"DMRLAD/{family}-v0")
    with pytest.raises(CardError, match=message):
        env.reset(seed=0, options={"task": task})
    env.close()
    assert list(tmp_path.iterdir()) == []  # MuJoCo leaves a log where a simulation breaks up


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_no_number_is_not_a_wrong_shape(value: float) -> None:
    env = DMRLADEnv("DMRLAD/PointGoal-v0")
    env.reset(seed=0)
    with pytest.raises(CardError, match=rf"action with an entry {value} is not valid; accepted: 2 finite numbers"):
        env.step(np.array([0.0, value]))
    with pytest.raises(CardError, match=r"action of shape \(1, 3\) is not valid"):
        env.step(np.zeros(3))


def test_a_family_shows_the_keys_of_its_own_goal_only(capsys: pytest.CaptureFixture[str]) -> None:
    from program import shown

    printed = shown(capsys, "envs", "CheetahVelSparse")
    assert "goal.low" in printed and "goal.high" in printed
    assert not any(f"goal.{key}" in printed for key in ("region", "norm", "variants", "box", "scaled", "radius"))
    assert "goal.radius" in shown(capsys, "envs", "AntGoalSparse") and "goal.norm" in shown(capsys, "envs", "AntGoalSparse")
