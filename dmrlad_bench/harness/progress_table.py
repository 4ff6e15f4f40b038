"""Reading `progress.csv`, which a kill may have cut and which anyone may have edited: what can be read is kept, the rest is told of."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from dmrlad_bench.cards.writing import write_atomic

PROGRESS_FILE = "progress.csv"
LISTED = 10  # lines or iterations that a message names
Row = dict[str, str]


def read_rows(path: Path, last_iteration: int) -> tuple[list[Row], list[int]]:
    """The rows up to an iteration, and the numbers of the lines that cannot be read; a kill may have cut the last one, which is left out.

    A line is read where it has a number, or nothing, for every name of the first line, and an iteration that no line before has.
    """
    if not path.exists():
        return [], []
    lines = path.read_bytes().decode(errors="replace").split("\n")
    columns = _cells(lines[0])
    if columns is None or "iteration" not in columns or len(set(columns)) < len(columns) or "\ufffd" in lines[0]:
        return [], list(range(1, len(lines)))
    rows: dict[int, Row] = {}
    unreadable: list[int] = []
    for number, line in enumerate(lines[1:-1], start=2):  # behind the last end of a line stands what a kill cut
        if not line.strip():
            continue
        row = _row(columns, line)
        if row is None or int(row["iteration"]) in rows:
            unreadable.append(number)
        else:
            rows[int(row["iteration"])] = row
    return [row for iteration, row in rows.items() if iteration <= last_iteration], unreadable


def damage(path: Path, rows: Sequence[Row], unreadable: Sequence[int], last_iteration: int) -> str | None:
    """What of a table is lost, in one line, with the file as it is kept under another name; None where nothing is lost.

    Args:
        path: the table.
        rows: that could be read, up to `last_iteration`.
        unreadable: numbers of the lines that could not.
        last_iteration: up to which there should be rows.
    """
    missing = sorted(set(range(1, last_iteration + 1)) - {int(row["iteration"]) for row in rows})
    if not last_iteration or not (missing or unreadable):
        return None
    parts = [f"cannot read {_listed('line', unreadable)}"] if unreadable else []
    parts += [f"has no row of {_listed('iteration', missing)}"] if missing else []
    kept = f"; the file is kept as {_keep(path).name}" if path.exists() else ""
    return f"{path}: {' and '.join(parts)}{kept}; the run goes on without"


def _row(columns: list[str], line: str) -> Row | None:
    cells = _cells(line)
    if cells is None or len(cells) != len(columns):
        return None
    row = dict(zip(columns, cells, strict=True))
    try:
        for cell in cells:
            float(cell or 0)
        return row if row["iteration"].isascii() and row["iteration"].isdigit() and int(row["iteration"]) else None
    except ValueError:
        return None


def _cells(line: str) -> list[str] | None:
    try:
        return next(csv.reader([line], strict=True), None)
    except csv.Error:
        return None


def _keep(path: Path) -> Path:
    """Copy a file beside itself, under a name that is not taken yet, and return that."""
    content, number = path.read_bytes(), 1
    while True:
        kept = path.with_name(f"{path.name}.damaged{number if number > 1 else ''}")
        if not kept.is_symlink():
            if not kept.exists():
                write_atomic(kept, content)
                return kept
            if kept.read_bytes() == content:
                return kept
        number += 1


def _listed(what: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f"{what}{'s' if len(numbers) > 1 else ''} {shown}{more}"
