"""`progress.csv` after an accident or an edit: what is lost is said, what was there is kept, and the run goes on."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting_agent import CountingAgent
from counting_runs import ITERATIONS, rows, run, stopped_before_the_end, timeless
from program import shown

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.checkpoint import load_checkpoint, save_checkpoint
from dmrlad_bench.harness.log import Table, reconstruction_updates
from dmrlad_bench.harness.progress_table import read_rows

Lines = list[bytes]


def cut(lines: Lines) -> Lines:
    return [*lines[:2], lines[2][:9], *lines[3:]]


def text_in_a_cell(lines: Lines) -> Lines:
    return [*lines[:2], lines[2].replace(b",", b",abc", 1), *lines[3:]]


def a_row_gone(lines: Lines) -> Lines:
    return [*lines[:2], *lines[3:]]


def a_row_twice(lines: Lines) -> Lines:
    return [*lines[:3], *lines[2:]]


def not_text(lines: Lines) -> Lines:
    return [*lines[:2], b"\xff\xfe\x00" + lines[2], *lines[3:]]


def no_iteration(lines: Lines) -> Lines:
    return [*lines[:2], b"x" + lines[2], *lines[3:]]


def no_head(lines: Lines) -> Lines:
    return lines[1:]


def last_row_cut(lines: Lines) -> Lines:
    return [*lines[:3], lines[3][:10]]


DAMAGES = [
    (cut, "cannot read line 3 and has no row of iteration 2", [1, 3]),
    (text_in_a_cell, "cannot read line 3 and has no row of iteration 2", [1, 3]),
    (a_row_gone, "has no row of iteration 2", [1, 3]),
    (a_row_twice, "cannot read line 4", [1, 2, 3]),
    (not_text, "cannot read line 3 and has no row of iteration 2", [1, 3]),
    (no_iteration, "cannot read line 3 and has no row of iteration 2", [1, 3]),
    (no_head, "cannot read lines 1, 2, 3 and has no row of iterations 1, 2, 3", []),
    (last_row_cut, "has no row of iteration 3", [1, 2]),
]


@pytest.mark.parametrize(("damage", "message", "left"), DAMAGES)
def test_rows_are_not_lost_without_a_word(
    tmp_path: Path,
    counting: Callable[..., list[CountingAgent]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Lines], Lines],
    message: str,
    left: list[int],
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    path, whole = folder / "progress.csv", rows(folder)
    damaged = b"\n".join(damage(path.read_bytes().split(b"\n")[:-1])) + (b"" if damage is last_row_cut else b"\n")
    path.write_bytes(damaged)
    capsys.readouterr()
    run(tmp_path, resume=True)
    expected = f"{path}: {message}; the file is kept as progress.csv.damaged; the run goes on without\n"
    assert capsys.readouterr().err == expected
    assert (folder / "progress.csv.damaged").read_bytes() == damaged
    assert rows(folder) == [whole[iteration - 1] for iteration in left]


def test_each_damaged_file_is_kept_once(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    path = folder / "progress.csv"
    for content in (b"one\n", b"two\n", b"two\n", b"one\n"):
        path.write_bytes(content)
        Table(path, ITERATIONS)
    assert [(entry.name, entry.read_bytes()) for entry in sorted(folder.glob("progress.csv.*"))] == [
        ("progress.csv.damaged", b"one\n"),
        ("progress.csv.damaged2", b"two\n"),
    ]
    path.unlink()
    assert Table(path, ITERATIONS).damage == f"{path}: has no row of iterations 1, 2, 3; the run goes on without"


def test_an_undamaged_table_is_read_without_a_word(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows behind the checkpoint, a row that a kill cut, and an empty line at the end are none."""
    counting()
    whole, folder = run(tmp_path / "whole").folder, stopped_before_the_end(tmp_path / "cut", monkeypatch)
    for path in folder.glob("checkpoint-000003*"):
        path.unlink()
    with (folder / "progress.csv").open("a") as file:
        file.write("\n4,99")
    capsys.readouterr()
    assert timeless(run(tmp_path / "cut", resume=True).folder) == timeless(whole)
    assert capsys.readouterr().err == ""
    assert rows(folder) == rows(whole)
    assert not list(folder.glob("progress.csv.*"))


def test_any_name_stands_in_the_table(tmp_path: Path) -> None:
    path, names = tmp_path / "progress.csv", ("losses/a,b", 'losses/quo"ted', "losses/'", "losses/ space ", "losses/é", "losses/a;b")
    table = Table(path, 0)
    lead = {"environment_steps": 2, "gradient_updates": 3, "seconds": 4.0}
    table.add({"iteration": 1, **lead, **{name: float(number) for number, name in enumerate(names)}})
    table.add({"iteration": 2, **lead, **{name: float("nan") for name in names}})
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["losses/a,b"] for row in csv.DictReader(file)] == ["0", "nan"]
    found, unreadable = read_rows(path, 2)
    assert unreadable == []
    assert [found[0][name] for name in names] == [str(number) for number in range(len(names))]
    again = Table(path, 2)
    assert again.damage is None
    assert again.rows == table.rows


CELLS = ("abc", "inf", "-inf", "nan", "1e400", "-5", "9" * 5000, "\x00", '"', "1,2")


def test_the_profile_of_a_changed_table_has_no_rate_in_place_of_a_wrong_one(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str]
) -> None:
    counting()
    folder = run(tmp_path).folder
    lines = (folder / "progress.csv").read_text().splitlines()
    given = ["run", "--agent", "dmrlad", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--threads", "1", "--quiet"]
    given += [part for key in ("iterations=3", "evaluation_interval=2", "tasks_per_iteration=4") for part in ("--set", f"schedule.{key}")]
    for cell in ("10", *CELLS):
        counts = ["losses/reconstruction_updates", "10", cell, "10"]
        (folder / "progress.csv").write_text("".join(f"{line},{count}\n" for line, count in zip(lines, counts, strict=True)))
        assert reconstruction_updates(folder) == (30 if cell == "10" else 0), cell
        if cell in ("abc", "inf", "nan"):
            assert "wall seconds by phase" in shown(capsys, *given, "--out", tmp_path, "--resume", "--profile")


CHANGES = [{"iteration": "3"}, {"iteration": 2}, {"seconds": None}, {"shards": []}, {"curve": {}}, {"more": 1}]
CHANGES += [{"curve": [{"iteration": "x"}]}, {"phases": {"collect": "long"}}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_position_that_none_wrote_is_one_line(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    state = load_checkpoint(folder, ITERATIONS)
    state["position"] |= change
    save_checkpoint(folder, ITERATIONS, state)
    (folder / "checkpoint-000002.json").unlink()
    with pytest.raises(CardError, match=r"checkpoint 3 does not fit this version of the program: ") as caught:
        run(tmp_path, resume=True)
    assert str(caught.value).isprintable()
