"""A study as a table, and its best values as a card's section."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmrlad_bench.reports.formats import ReportTable


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended.

    Attributes:
        number: from 0.
        state: `complete`, `pruned` or `failed`.
        value: mean return of validation tasks in the last episode: at the end, or where the trial was pruned; None without any.
        evaluations: points of its validation curves.
        values: of the tuned keys, as its runs had them.
        note: where it was pruned, or why it failed.
    """

    number: int
    state: str
    value: float | None
    evaluations: int
    values: dict[str, Any]
    note: str = ""


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The complete trial of the highest value, the earliest of equal ones; None where no trial was completed."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def trials_table(name: str, trials: Sequence[TrialRecord], seeds: int) -> ReportTable:
    """A row for each trial, by number."""
    best, keys = best_trial(trials), list(dict.fromkeys(key for trial in trials for key in trial.values))
    rows = []
    for trial in trials:
        state = "best" if trial is best else trial.state
        value = "-" if trial.value is None else f"{trial.value:.2f}"
        rows.append((str(trial.number), state, value, *(_text(trial.values[key]) if key in trial.values else "-" for key in keys)))
    runs = "one run" if seeds == 1 else f"mean of {seeds} runs"
    counts = ", ".join(f"{sum(trial.state == state for trial in trials)} {state}" for state in ("complete", "pruned", "failed"))
    notes = [
        f"return: of validation tasks in the last episode at the end of training, {runs}; of a pruned trial, where it was stopped",
        f"trials: {counts}",
        *(f"trial {trial.number} failed: {trial.note}" for trial in trials if trial.state == "failed"),
    ]
    return ReportTable(f"study {name}", ("trial", "state", "return", *keys), tuple(rows), tuple(notes))


def best_toml(name: str, trials: Sequence[TrialRecord], family: str, budget: str, seeds: int) -> str | None:
    """The best trial's values as the section of an agent's card, under a line that names the study; None without a complete trial."""
    best = best_trial(trials)
    if best is None:
        return None
    sections: dict[str, list[str]] = {}
    for key, value in best.values.items():
        section, _, own = key.partition(".")
        sections.setdefault(section, []).append(f"{own} = {_text(value)}")
    runs = "seed 0" if seeds == 1 else f"seeds 0 to {seeds - 1}"
    told = f"# Tuned: study {name}, trial {best.number} of {len(trials)}, return {best.value:.2f} on validation tasks, {runs}."
    lines = [f"{section} = {{ {', '.join(pairs)} }}" for section, pairs in sections.items()]
    return "\n".join([told, f"[family.{family}.budget.{budget}]", *lines]) + "\n"


def _text(value: Any) -> str:
    return json.dumps(value)  # which is TOML for numbers, booleans, strings and lists of them
