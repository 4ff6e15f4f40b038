"""Runs of the counting agent on a small family, killed where a test wants it, and what they left."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.run import Run, RunConfig
from dmrlad_bench.harness.session import Session
from dmrlad_bench.harness.train import train_run

ITERATIONS = 3
OVERRIDES = (f"schedule.iterations={ITERATIONS}", "schedule.evaluation_interval=2", "schedule.tasks_per_iteration=4")
COMMAND = ["dmrlad-bench", "run", "--agent", "dmrlad"]


class Crash(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def planned(out: Path, *overrides: str, **options: Any) -> tuple[RunConfig, Path]:
    options = {"budget": "smoke", "device": "cpu", "threads": 1} | options
    return plan("dmrlad", "PointGoal", out=out, overrides=(*OVERRIDES, *overrides), **options)


def run(out: Path, *overrides: str, resume: bool = False, **options: Any) -> Run:
    config, folder = planned(out, *overrides, resume=resume, **options)
    return train_run(config, folder, resume=resume, command=COMMAND, quiet=True)


def timeless(folder: Path) -> dict[str, Any]:
    """The content of `result.json` apart from times."""
    content = json.loads((folder / "result.json").read_bytes())
    del content["wall_seconds"]
    for point in content["curve"]:
        del point["seconds"]
    return content


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def stopped_before_the_end(out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed after its last iteration."""

    def crash(_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Session, "_finish", crash)
        run(out)
    return planned(out)[1]
