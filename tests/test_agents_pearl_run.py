"""PEARL by the program's own command: a whole smoke run, and one that was killed and continued, give the same result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmrlad_bench.cli import main
from dmrlad_bench.harness.session import Session


class Killed(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def command(agent: str, out: Path) -> list[str]:
    content = ["run", "--agent", agent, "--env", "PointGoalSparse", "--budget", "smoke", "--out", str(out)]
    return [*content, "--device", "cpu", "--threads", "1", "--quiet", "--set", "schedule.iterations=4"]


def finished(*arguments: str) -> None:
    try:
        main(list(arguments))
    except SystemExit as stopped:
        assert stopped.code in (None, 0)


def timeless(folder: Path) -> dict[str, Any]:
    """The content of the one `result.json` in `folder` apart from times and the command."""
    (path,) = folder.rglob("result.json")
    content = json.loads(path.read_bytes())
    del content["wall_seconds"], content["command"]
    for point in content["curve"]:
        del point["seconds"]
    return content


@pytest.mark.parametrize("agent", ["pearl", "pearl-hfr"])
def test_a_killed_run_continues_to_the_same_result(agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(*command(agent, tmp_path / "whole"))
    learn = Session._learn

    def killed_in_the_third(session: Any, trials: Any) -> Any:
        if session.position.iteration == 2:
            raise Killed
        return learn(session, trials)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Session, "_learn", killed_in_the_third)
        finished(*command(agent, tmp_path / "killed"))
    assert not list((tmp_path / "killed").rglob("result.json"))
    finished(*command(agent, tmp_path / "killed"), "--resume")
    whole, resumed = timeless(tmp_path / "whole"), timeless(tmp_path / "killed")
    assert whole == resumed
    assert whole["iterations"] == 4 and whole["gradient_updates"] == 40
    assert whole["agent"]["name"] == agent
