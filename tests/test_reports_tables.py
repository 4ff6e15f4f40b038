"""Seconds by phase as `run --profile` prints them."""

from __future__ import annotations

import io
from pathlib import Path

from report_results import make_result
from rich.console import Console

from dmrlad_bench.harness.log import LEADING, Table, reconstruction_updates
from dmrlad_bench.reports.results import Seconds
from dmrlad_bench.reports.tables import phases_table


def rows_of(reconstructions: int, **changes: object) -> dict[str, list[str]]:
    """The printed table's cells by phase."""
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(phases_table(make_result(**changes), reconstructions))  # pyright: ignore[reportArgumentType]
    lines = [line for line in console.export_text().splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in cells}


PHASES = {"collect": 20.0, "relabel": 1.0, "reconstruct": 9.0, "re-infer": 0.5, "improve": 60.0, "evaluate": 4.0, "save": 0.5}


def test_every_phase_has_its_seconds_share_and_rate() -> None:
    changes = {"wall_seconds": Seconds(total=100.0, phases=PHASES), "environment_steps": 50_000, "gradient_updates": 9_000}
    rows = rows_of(3_000, **changes)
    assert list(rows)[:2] == ["improve", "collect"]
    assert rows["collect"] == ["20.0", "20.0%", "2500 environment steps/s"]
    assert rows["reconstruct"] == ["9.0", "9.0%", "3 ms an update"]
    assert rows["improve"] == ["60.0", "60.0%", "10 ms an update"]
    assert rows["relabel"] == ["1.0", "1.0%", ""]
    assert rows["rest"] == ["5.0", "5.0%", ""]
    assert rows["total"][0] == "100.0"
    assert set(PHASES) < set(rows)


def test_an_agent_that_learns_nothing_has_no_rates() -> None:
    changes = {"wall_seconds": Seconds(total=2.0, phases={"evaluate": 2.0}), "environment_steps": 0, "gradient_updates": 0}
    assert all(not row[-1] for row in rows_of(0, **changes).values())


def test_reconstruction_updates_are_summed_over_the_iterations(tmp_path: Path) -> None:
    assert reconstruction_updates(tmp_path) == 0
    table = Table(tmp_path / "progress.csv", 0)
    for iteration, updates in enumerate((350.0, 1000.0), start=1):
        table.add({name: iteration for name in LEADING} | {"losses/reconstruction_updates": updates})
    table.add({name: 3 for name in LEADING})
    assert reconstruction_updates(tmp_path) == 1350
