"""What 95 % intervals cover where the truth is known, and that the page's table is what its code gives."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "docs" / "experiments" / "coverage.py"
DEVIATIONS = 4.5  # of a share, that two simulations may lie apart


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_experiment", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


EXPERIMENT = load()
NORMAL_RUNS = [name for name in EXPERIMENT.QUANTITIES if name not in ("the same by BCa", "mean, one run in four fails")]

IMPROVEMENT = ("probability of improvement", "the same over four families")  # few pairs of runs, coarse steps: on the safe side


def published() -> dict[tuple[int, str], tuple[float | None, float | None]]:
    """Shares over runs, and each task for itself, by number of runs and quantity, as they stand on the page."""
    text = EXPERIMENT.PAGE.read_text(encoding="utf-8").partition(EXPERIMENT.BEGIN)[2].partition(EXPERIMENT.END)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.split("\n") if line.startswith("|")]
    assert rows[0] == ["runs", *EXPERIMENT.QUANTITIES]
    found = {}
    for row in rows[2:]:
        for quantity, cell in zip(rows[0][1:], row[1:], strict=True):
            new, old = re.fullmatch(r"(none|[\d.]+)(?: \(([\d.]+)\))?", cell).groups()  # pyright: ignore[reportOptionalMemberAccess]
            found[int(row[0]), quantity] = (None if new == "none" else float(new) / 100, None if old is None else float(old) / 100)
    assert {runs for runs, _ in found} == set(EXPERIMENT.RUNS)
    return found


@pytest.mark.parametrize("runs", [5, 10])
@pytest.mark.parametrize("quantity", NORMAL_RUNS)
def test_intervals_over_runs_cover_what_they_say(quantity: str, runs: int) -> None:
    repetitions = 600 if quantity == "mean over four families" else 1200
    found = EXPERIMENT.coverage(quantity, runs, repetitions, seed=1)
    most = 1.0 if quantity in IMPROVEMENT else 0.98
    assert 0.92 <= found.runs <= most
    assert found.tasks_apart is None or found.tasks_apart < 0.55
    new, old = published()[runs, quantity]
    assert new is not None
    assert 0.92 <= new <= most
    for share, stated in ((found.runs, new), (found.tasks_apart, old)):
        assert (share is None) == (stated is None)
        if share is not None and stated is not None:
            noise = np.sqrt(stated * (1.0 - stated) * (1.0 / repetitions + 1.0 / EXPERIMENT.REPETITIONS))
            assert abs(share - stated) <= DEVIATIONS * noise


def test_every_other_number_of_the_page_is_what_the_code_gives() -> None:
    others = [key for key in published() if key[0] not in (5, 10) or key[1] not in NORMAL_RUNS]
    assert len(others) == len(published()) - 2 * len(NORMAL_RUNS)
    for runs, quantity in others:
        found = EXPERIMENT.coverage(quantity, runs, repetitions=100, seed=1)
        for share, stated in zip((found.runs, found.tasks_apart), published()[runs, quantity], strict=True):
            assert (share is None) == (stated is None)
            if share is not None and stated is not None:
                noise = np.sqrt(stated * (1.0 - stated) * (1.0 / 100 + 1.0 / EXPERIMENT.REPETITIONS))
                assert abs(share - stated) <= DEVIATIONS * noise + 0.005, (runs, quantity, share, stated)


def test_more_runs_do_not_mend_tasks_drawn_apart() -> None:
    shares = [EXPERIMENT.coverage("mean return, one family", runs, repetitions=300, seed=2).tasks_apart for runs in (2, 20)]
    assert max(shares) < 0.6


def test_the_simulation_has_the_deviations_it_says() -> None:
    tasks = np.random.default_rng(0).normal(0.0, EXPERIMENT.TASK, size=EXPERIMENT.TASKS)
    scores = EXPERIMENT.simulated(4000, 5.0, tasks, np.random.default_rng(1))
    assert scores.mean(axis=1).std() == pytest.approx(EXPERIMENT.deviation_of_run_means(), rel=0.05)
    np.testing.assert_allclose(scores.mean(axis=0), 5.0 + tasks, atol=10.0)
    residual = scores - scores.mean(axis=1, keepdims=True) - tasks
    assert residual.std() == pytest.approx(np.hypot(EXPERIMENT.RUN_AND_TASK, EXPERIMENT.TRIAL), rel=0.05)


def test_the_page_is_written_by_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{EXPERIMENT.BEGIN}\nold\n{EXPERIMENT.END}\nafter\n")
    monkeypatch.setattr(EXPERIMENT, "PAGE", page)
    monkeypatch.setattr(EXPERIMENT, "REPETITIONS", 2)
    monkeypatch.setattr(EXPERIMENT, "table", lambda: "new\n")
    EXPERIMENT.main()
    assert page.read_text() == f"before\n{EXPERIMENT.BEGIN}\nnew\n{EXPERIMENT.END}\nafter\n"
