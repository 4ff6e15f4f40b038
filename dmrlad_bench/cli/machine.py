"""`doctor`: what this machine is."""

from __future__ import annotations

from rich.table import Table

from dmrlad_bench.cli.output import table_console


def doctor() -> None:
    """Versions, device, renderer and threads: what to paste into a bug report."""
    from dmrlad_bench.harness.machine import diagnosis

    table = Table("what", "found")
    for what, found in diagnosis().items():
        table.add_row(what, found)
    table_console().print(table)
