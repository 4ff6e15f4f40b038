"""The commands as a user meets them: what is printed where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from program import PATIENCE, SMOKE, program, shown

import dmrlad_bench


def test_cards_of_ones_own_in_another_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards, elsewhere = tmp_path / "cards", tmp_path / "elsewhere"
    cards.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (cards / "base.toml").write_text('name = "base"\ndescription = "d"\nextends = "dmrlad"\n[schedule]\npolicy_updates = 2\n')
    (cards / "mine.toml").write_text('name = "my-agent"\ndescription = "d"\nextends = "base.toml"\n[inference]\nlatent_dim = 2\n')
    published = (Path(__file__).parent.parent / "envs" / "PointGoal.toml").read_text()
    reference = "\n[reference]\nrandom = -45.0\nblind = -40.0\noracle = -8.0\n"
    (cards / "my.toml").write_text(published.replace('name = "PointGoal"', 'name = "MyPointGoal"') + reference)
    printed = shown(capsys, "run", "--agent", "../cards/mine.toml", "--env", "../cards/my.toml", *SMOKE[5:], "--quiet", "--out", "results")
    folder = Path("results/MyPointGoal/my-agent--smoke--seed0")
    assert f"run folder: {folder}" in printed
    assert "my-agent on DMRLAD/MyPointGoal-v0" in printed
    content = json.loads((folder / "result.json").read_bytes())
    last = (np.array(content["final"][0]["returns"])[:, :, 2].mean() + 40.0) / 32.0
    assert re.search(rf"│ *3 │.*│ *{last:.3f} │", printed), printed
    config = tomllib.loads((folder / "config.toml").read_text())
    assert (config["agent"]["inference"]["latent_dim"], config["agent"]["schedule"]["policy_updates"]) == (2, 2)
    assert f"│ {last:.3f}" in re.sub(" +", " ", shown(capsys, "evaluate", folder))
    assert "reference.oracle" in shown(capsys, "envs", "../cards/my.toml")


def test_listing_commands(capsys: pytest.CaptureFixture[str]) -> None:
    listed = shown(capsys, "envs")
    assert [line.split()[1] for line in listed.splitlines() if "DMRLAD/" in line] == list(dmrlad_bench.families())
    assert "\N{HORIZONTAL ELLIPSIS}" not in listed
    assert "goal.radius" in shown(capsys, "envs", "DMRLAD/PointGoal-v0")
    assert "random" in shown(capsys, "agents")
    resolved = shown(capsys, "agents", "dmrlad", "--env", "PointGoal", "--budget", "full", "--set", "schedule.iterations=7")
    assert "iterations = 7" in resolved
    assert "[relabel]" in resolved


def test_a_piped_run_prints_plainly(tmp_path: Path) -> None:
    done = program(*SMOKE, "--out", tmp_path, "--profile", env=os.environ | {"FORCE_COLOR": ""})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "iteration 3/3" in done.stderr
    assert "left" in done.stderr
    assert "wall seconds by phase" in done.stdout
    assert re.search(r"│ collect +│[^│]+│[^│]+│ +\d+ environment steps/s │", done.stdout), done.stdout
    assert re.search(r"│ reconstruct +│[^│]+│[^│]+│ +[\d.]+ ms an update │", done.stdout), done.stdout
    assert done.stdout.rstrip().endswith(f"run folder: {tmp_path}/PointGoal/dmrlad--smoke--seed0")
    again = program("evaluate", tmp_path / "PointGoal" / "dmrlad--smoke--seed0", "--episodes", "2", "--split", "ood")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("│") > 10


HELP = """
import sys
from dmrlad_bench.cli import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({"torch", "mujoco", "metaworld"} & set(sys.modules)))
"""


def test_help_needs_neither_torch_nor_simulator() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_doctor() -> None:
    done = program("doctor")
    assert done.returncode == 0, done.stderr
    for what in ("torch", "mujoco", "device", "renderer", "cores"):
        assert what in done.stdout
