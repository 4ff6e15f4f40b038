"""README and docs keep their promises: commands exist and run, Python blocks run and give what their comments say, links lead somewhere."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import typer
from program import shown

from dmrlad_bench.cards import CardError
from dmrlad_bench.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.name for path in PAGES]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:    |\$ )(?:.* && )?(dmrlad-bench .*)$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
RUN_HERE = ("envs", "agents", "doctor")  # and what trains with budget smoke; other commands are parsed
PREPARED = {
    "comparing.md": ["run", "--agent", "random", "--env", "PointGoalSparse", "--budget", "smoke"]
}  # what a page says was run before


def commands_of(page: Path) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in COMMAND.findall(page.read_text(encoding="utf-8"))]


def blocks_of(page: Path) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "python"]


def copy_examples(folder: Path) -> None:
    for example in (ROOT / "docs" / "examples").iterdir():
        if example.is_file():
            shutil.copy(example, folder)


def runs_here(command: list[str]) -> bool:
    return command[0] in RUN_HERE or (command[0] == "run" and "smoke" in command)


EVERY = [pytest.param(command, id=f"{page.name}: {' '.join(command)[:60]}") for page in PAGES for command in commands_of(page)]


@pytest.mark.parametrize("command", EVERY)
def test_every_command_is_one_that_the_program_takes(command: list[str]) -> None:
    known = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert command[0].startswith("--") or command[0] in known
    if command[0] in known:
        known[command[0]].make_context(command[0], command[1:])  # raises where an option or a value is not taken


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(runs_here, commands_of(page)))], ids=lambda page: page.name)
def test_short_commands_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in filter(runs_here, commands_of(page)):
        assert shown(capsys, *command)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_python_blocks_run_in_order_and_give_what_they_say(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if page.name in PREPARED:
        shown(capsys, *PREPARED[page.name])
    names: dict[str, Any] = {"__name__": "documented"}
    for block in blocks_of(page):
        if "render_mode" not in block or draws():
            run_block(block, names)


@functools.cache
def draws() -> bool:
    """Whether this machine has a renderer; blocks with pictures run only there."""
    try:
        env = gymnasium.make("DMRLAD/PointGoal-v0", render_mode="rgb_array", width=32, height=32)
        env.reset(seed=0)
        env.render()
        env.close()
    except CardError:
        return False
    return True


def run_block(block: str, names: dict[str, Any]) -> None:
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        source = ast.get_source_segment(block, statement) or ""
        comment = lines[(statement.end_lineno or 1) - 1].partition("  # ")[2]
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), "documentation", "eval"), names)
            check_promise(value, comment, source)
        else:
            exec(compile(ast.Module([statement], []), "documentation", "exec"), names)


def check_promise(value: Any, comment: str, source: str) -> None:
    """A comment that begins with a value promises it: the value itself, an array's shape, its text or its short form."""
    if not comment:
        return
    if isinstance(value, Path):
        assert str(value) == comment, source
        return
    if re.match(r"[A-Z]\w+\(", comment):
        assert repr(value) == comment, source
        return
    promised = re.match(r"(\(.*?\)|True|False|-?\d[\d.]*)(?=$|[:,; ])", comment)
    if promised:
        expected = ast.literal_eval(promised[1])
        found = value.shape if isinstance(value, np.ndarray) and isinstance(expected, tuple) else value
        assert np.array_equal(found, expected), f"{source} gave {found}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere_in_a_checkout(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_what_is_looked_for_is_there() -> None:
    assert len(EVERY) > 15 and sum(len(blocks_of(page)) for page in PAGES) > 8
