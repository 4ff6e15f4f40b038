"""What users of a shell expect: help, version, completion, tables that fit the terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from program import shown
from rich.console import Console
from rich.table import Table

import dmrlad_bench
from dmrlad_bench.cli.fitting import fitted
from dmrlad_bench.cli.options import complete_agents, complete_budgets, complete_families


def test_the_bare_program_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    printed = shown(capsys)
    assert printed.startswith("Usage: dmrlad-bench [OPTIONS] COMMAND")
    assert printed == shown(capsys, "--help")
    for command in ("run", "evaluate", "compare", "plot", "submit", "leaderboard", "envs", "agents", "doctor"):
        assert f"\n  {command} " in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--version") == f"dmrlad-bench {dmrlad_bench.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("dmrlad-bench leaderb", {"leaderboard"}),
        ("dmrlad-bench run --env PointG", {"PointGoal", "PointGoalSparse"}),
        ("dmrlad-bench run --agent cemrl-hfr-", {"cemrl-hfr-no-norm"}),
        ("dmrlad-bench agents rl", {"rl2"}),
    ],
)
def test_a_shell_asks_for_completions(words: str, expected: set[str]) -> None:
    asked = {"_DMRLAD_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    script = "import sys; from dmrlad_bench.cli import main\ntry: main([])\nfinally: assert not {'torch', 'mujoco'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | asked, capture_output=True, text=True, timeout=60)
    assert (done.returncode, set(done.stdout.split())) == (0, expected), done.stderr


def test_completions_are_the_cards() -> None:
    assert complete_families("DMRLAD/CheetahVelS") == ["DMRLAD/CheetahVelSparse-v0"]
    assert complete_agents("dmrlad-p")[0] == "dmrlad-plus"
    assert complete_budgets("") == ["smoke", "quick", "standard", "full"]


def results_table() -> Table:
    table = Table()
    for name in ("agent", "rank", "return, episode 1", "return, episode 3", "train", "ood", "env steps", "minutes"):
        table.add_column(name)
    table.add_row("dmrlad-plus", "1", "-123.45 [-150.00, -99.12]", "12.34 [-1.00, 20.00]", "-12.00", "-400.00", "1016000", "48.0")
    return table


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_narrow_terminal_loses_columns_not_digits(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(fitted(results_table(), width))
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert max(map(len, printed.splitlines())) <= width
    assert "dmrlad-plus" in printed and "\N{HORIZONTAL ELLIPSIS}" not in printed
    assert "not shown for want of width: minutes, env steps" in " ".join(printed.split())
    if width >= 80:
        assert "12.34 [-1.00, 20.00]" in printed


def test_a_wide_terminal_shows_all() -> None:
    table = results_table()
    assert fitted(table, 200) is table


def test_sentences_are_broken_not_left_out() -> None:
    table = Table("name", "description")
    table.add_row("dmrlad", "word " * 60)
    assert fitted(table, 80) is table
