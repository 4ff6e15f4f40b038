"""Tables of text and their four forms: Rich, Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.reports.estimates import Estimate
from dmrlad_bench.reports.statistics import FEWEST_RUNS

FORMATS = ("table", "markdown", "csv", "latex")
LATEX_SIGNS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class ReportTable:
    """One table.

    Attributes:
        title: one line.
        columns: their names; the first holds names and is aligned to the left, the others to the right.
        rows: one text for each column.
        notes: lines below the table.
        best: (row, column) of the cells that LaTeX prints in bold.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    best: tuple[tuple[int, int], ...] = ()


def agent_label(name: str, track: str) -> str:
    """An agent's name as tables show it: one of the privileged track is marked."""
    return name if track == "standard" else f"{name} ({track})"


def tracks_note(tracks: Iterable[str]) -> list[str]:
    """The line below a table that holds privileged agents; none where it does not."""
    note = "privileged: while scored, shown the task, or handed reward function or task list; ranked apart from the standard track"
    return [note] if "privileged" in tracks else []


def check_format(name: str) -> None:
    """Raises `CardError` for a form of table that there is none of."""
    if name not in FORMATS:
        raise CardError(f"unknown format {name!r}{nearest(name, FORMATS)}; accepted: {', '.join(FORMATS)}")


def estimate_text(estimate: Estimate, digits: int) -> str:
    """A number with its interval, as `0.51 [0.42, 0.60]`; where there is none, with the runs' values, as `0.51 (0.47; 0.55)`."""
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is not None and estimate.high is not None:
        return f"{text} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return f"{text} ({'; '.join(f'{value:.{digits}f}' for value in estimate.values)})" if len(estimate.values) > 1 else text


def few_runs_note(names: Iterable[str]) -> tuple[str, ...]:
    """The note below a table in which some agents have too few runs for an interval; none where all have enough."""
    found = ", ".join(names)
    return (f"fewer than {FEWEST_RUNS} runs, so no interval and no rank, and the runs' values in parentheses: {found}",) if found else ()


def seeds_note(seeds: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """The note below a table whose agents have run with other seeds."""
    return "seeds differ: " + "; ".join(f"{name}: {', '.join(map(str, entries))}" for name, entries in seeds)


def rich_tables(tables: Sequence[ReportTable]) -> Group:
    """What the console prints."""
    parts: list[Any] = []
    for table in tables:
        shown = Table(title=None)
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if number == 0 else "right")
        for row in table.rows:
            shown.add_row(*map(Text, row))
        parts += [Text(table.title), shown, *map(Text, table.notes)]
    return Group(*parts)


def plain(tables: Sequence[ReportTable]) -> str:
    """The console's tables as text, as wide as they need to be."""
    text = io.StringIO()
    Console(file=text, width=1000, highlight=False, no_color=True, markup=False, emoji=False).print(rich_tables(tables))
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def markdown(tables: Sequence[ReportTable], level: int = 3) -> str:
    """Markdown, titles as headings of `level`."""
    return "\n\n".join(_markdown(table, level) for table in tables) + "\n"


def _markdown(table: ReportTable, level: int) -> str:
    marks = ["---", *["---:"] * (len(table.columns) - 1)]
    lines = [_markdown_row(row) for row in (table.columns, marks, *table.rows)]
    notes = ["", *(f"- {_markdown_cell(note)}" for note in table.notes)] if table.notes else []
    return "\n".join([f"{'#' * level} {_markdown_cell(table.title)}", "", *lines, *notes])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_markdown_cell(cell) for cell in cells)} |"


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def latex(tables: Sequence[ReportTable]) -> str:
    """LaTeX for the package booktabs: a `table` environment each, its notes in the caption, the best in bold."""
    return "\n\n".join(map(_latex, tables)) + "\n"


def _latex(table: ReportTable) -> str:
    cells = [[escaped(cell) for cell in row] for row in table.rows]
    for row, column in table.best:
        cells[row][column] = rf"\textbf{{{cells[row][column]}}}"
    rows = [" & ".join(row) + r" \\" for row in (map(escaped, table.columns), *cells)]
    caption = ". ".join(escaped(text).removesuffix(".") for text in (table.title, *table.notes))
    alignment = "l" + "r" * (len(table.columns) - 1)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}.}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
    ]
    return "\n".join([*lines, *rows[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def escaped(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX_SIGNS.get(sign, sign) for sign in text)


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """One line for each record, after a line of the names; numbers in full, NaN and None empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _csv_value(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
