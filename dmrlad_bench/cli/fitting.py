"""Tables in a narrow terminal: whole columns are left out, never digits, and a line says which."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

PROSE = 40  # columns wider than that hold sentences, which may be broken into lines
PROSE_WIDTH = 24  # that they need at least
# What is left out first, the least important column first; what is not listed goes last, from the right.
LEAST_IMPORTANT = (
    *("minutes", "env steps", "ood", "train", "by run", "validation", "test", "rate", "budget", "trials", "tasks", "actions", "difference"),
    *("normalised", "regret", "runs", "seeds", "success", "reward", "body", "horizon", "family"),
)


def fitted(renderable: Any, width: int) -> Any:
    """`renderable`, its tables without the columns that `width` characters have no place for."""
    if isinstance(renderable, Group):
        return Group(*(fitted(part, width) for part in renderable.renderables))
    if not isinstance(renderable, Table):
        return renderable
    left_out: list[str] = []
    table = renderable
    while len(table.columns) > 1 and _needed(table) > width:
        name = _least_important([str(column.header) for column in table.columns])
        left_out.append(name)
        table = _without(table, name)
    if not left_out:
        return table
    return Group(table, Text(f"not shown for want of width: {', '.join(left_out)}; a wider terminal shows all, and so does a pipe"))


def _needed(table: Table) -> int:
    """Characters that a table takes at least without shortening a number."""
    total = 1
    for column in table.columns:
        cells = [str(column.header) if table.show_header else "", *map(str, column._cells)]
        widest = max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0)
        total += 3 + (PROSE_WIDTH if widest > PROSE else widest)
    return total


def _least_important(names: Sequence[str]) -> str:
    """The column to leave out; the first one, which says what a row is, stays."""
    for name in LEAST_IMPORTANT:
        if name in names[1:]:
            return name
    return names[-1]


def _without(table: Table, name: str) -> Table:
    """A copy of the table without the last column of that name."""
    place = max(number for number, column in enumerate(table.columns) if str(column.header) == name)
    smaller = copy.copy(table)
    smaller.columns = [copy.copy(column) for number, column in enumerate(table.columns) if number != place]
    for number, column in enumerate(smaller.columns):
        column._index = number
    return smaller
