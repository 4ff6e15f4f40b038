"""What notebooks show: tables as HTML. All text is escaped, since names come from cards and folders of anyone's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], notes: Iterable[str] = ()) -> str:
    """A table with its title above and its notes below, as HTML.

    Args:
        title: one line.
        columns: their names; none where rows are pairs of a name and a value.
        rows: one entry for each column; the first is aligned to the left.
        notes: lines below the table.
    """
    head = [f"<thead><tr>{''.join(map(_head, columns))}</tr></thead>"] if columns else []
    body = [f"<tr>{''.join(_cell(number, entry) for number, entry in enumerate(row))}</tr>" for row in rows]
    below = [f"<div><small>{escape(note)}</small></div>" for note in notes]
    lines = [f"<div><strong>{escape(title)}</strong></div>", "<table>", *head, "<tbody>", *body, "</tbody>", "</table>", *below]
    return "\n".join(lines)


def _head(name: str) -> str:
    return f"<th>{escape(name)}</th>"


def _cell(number: int, entry: object) -> str:
    aligned = "left" if number == 0 else "right"
    return f'<td style="text-align: {aligned}">{escape(str(entry))}</td>'
