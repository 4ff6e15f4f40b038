"""Result files that are not what a run wrote: exit code 2 and one line, whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from program import refused
from report_results import make_result, write_run


def edited(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> Path:
    """A run folder whose result was edited by hand."""
    run = write_run(folder, make_result("dmrlad", "PointGoalSparse"))
    content = json.loads((run / "result.json").read_bytes())
    edit(content)
    (run / "result.json").write_text(json.dumps(content))
    return run


def no_returns(content: dict[str, Any]) -> None:
    content["curve"][0]["scores"]["validation"]["returns"] = []


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "environment_steps": lambda content: content.update(environment_steps=10**400),
    "gradient_updates": lambda content: content.update(gradient_updates=-1),
    "seed": lambda content: content.update(seed=2**70),
    "budget": lambda content: content.update(budget="weird"),
    "agent.name": lambda content: content["agent"].update(name="$\\frac{$"),
    "family.id": lambda content: content["family"].update(id="DMRLAD/\u001b[31m-v0"),
    "final.0.returns": lambda content: content["final"][0]["returns"][0][0].__setitem__(0, 1e300),
    "wall_seconds.total": lambda content: content["wall_seconds"].update(total=-1.0),
    "returns": no_returns,
    "curve": lambda content: content.update(curve=5),
    "final": lambda content: content.update(final=[]),
}


@pytest.mark.parametrize("key", EDITS)
@pytest.mark.parametrize("command", ["plot", "submit", "compare"])
def test_an_edited_result_is_refused(key: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = edited(tmp_path / "runs", EDITS[key])
    options = {
        "plot": ["--kind", "learning", "--out", tmp_path / "figure.png"],
        "submit": ["--name", "mine", "--out", tmp_path / "boards"],
        "compare": [],
    }
    message = refused(capsys, command, run, *options[command])
    assert key in message and len(message) < 1000
    assert not (tmp_path / "figure.png").exists() and not (tmp_path / "boards").exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"format_version": ' + "9" * 5000 + "}", '{"format_version": NaN}', "", "nul", '"text"']
)
def test_a_file_that_is_no_result_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path, make_result())
    (run / "result.json").write_text(text)
    assert "result.json" in refused(capsys, "compare", run)


def test_a_page_that_is_not_utf_8_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_bytes(b"\xff\xfe# Leaderboards\n")
    assert "README.md: not what the files give" in refused(capsys, "leaderboard", "--check", "--folder", tmp_path)
