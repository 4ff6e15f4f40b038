"""Which runs a report is made of, and what must hold within one result: a file edited by hand does not pass."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmrlad_bench.cards import (
    BUDGETS,
    AgentConfig,
    CardError,
    FamilyCard,
    agent_names,
    family_names,
    load_agent,
    load_family,
    resolve_agent,
)
from dmrlad_bench.protocol import CURVE_SPLIT
from dmrlad_bench.reports.results import RESULT_FILE, Result, TrialMatrix, read_result

RUN_FILES = {RESULT_FILE, "config.toml"}
ACCEPTED = f"accepted: run folders, {RESULT_FILE} files, and folders that hold run folders"


@dataclass(frozen=True)
class RecordedRun:
    """A result and where it came from, for messages."""

    source: str
    result: Result


def read_runs(given: Iterable[Any]) -> list[RecordedRun]:
    """Read finished runs.

    Args:
        given: results, runs (anything with a `folder`), or paths: of a run folder, of a `result.json`, or of a folder that holds run
            folders at any depth, which are taken in the order of their names.

    Raises:
        CardError: nothing given, no run there, an unfinished run, a file of another format version, or one that contradicts itself.
    """
    runs = [run for entry in given for run in _read_entry(entry)]
    if not runs:
        raise CardError(f"no runs given; {ACCEPTED}")
    for run in runs:
        check_result(run)
    return runs


def _read_entry(entry: Any) -> list[RecordedRun]:
    if isinstance(entry, Result):
        return [RecordedRun(f"result of {entry.agent.name}, seed {entry.seed}", entry)]
    path = Path(getattr(entry, "folder", entry))
    if not path.exists():
        raise CardError(f"{path}: no such file or folder; {ACCEPTED}")
    if not path.is_dir():
        return [RecordedRun(str(path), read_result(path))]
    folders = list(_run_folders(path))
    if not folders:
        raise CardError(f"{path}: holds no run; {ACCEPTED}")
    return [RecordedRun(str(folder), read_result(folder)) for folder in folders]


def _run_folders(path: Path) -> Iterable[Path]:
    for folder, below, files in os.walk(path):
        below.sort()
        if RUN_FILES & set(files):
            below.clear()
            yield Path(folder)


def check_result(run: RecordedRun) -> None:
    """Raises `CardError` where the parts of a result contradict each other, as after an edit by hand."""
    result = run.result
    faults = (
        _fault_of_matrices(result.final),
        _fault_of_curve(result),
    )
    for fault in faults:
        if fault:
            raise CardError(f"{run.source}: contradicts itself (edited by hand?): {fault}")


def _fault_of_matrices(final: tuple[TrialMatrix, ...]) -> str | None:
    names = [(matrix.split, matrix.deterministic) for matrix in final]
    if len(set(names)) < len(names):
        return "key 'final': a split is there twice"
    for matrix in final:
        if len(set(matrix.task_index)) < len(matrix.task_index):
            return f"key 'final': a task of {matrix.split!r} is there twice"
    episodes = sorted({len(matrix.returns[0][0]) for matrix in final})
    return None if len(episodes) == 1 else f"key 'final': trials of {' and '.join(map(str, episodes))} episodes"


def _fault_of_curve(result: Result) -> str | None:
    if not result.curve:
        return "key 'curve': it is empty"
    steps = [point.environment_steps for point in result.curve]
    if steps != sorted(steps):
        return "key 'curve': environment steps decrease"
    last = result.curve[-1]
    for name in ("environment_steps", "gradient_updates"):
        if getattr(last, name) != getattr(result, name):
            return f"key {name!r} is {getattr(result, name)}, at the end of the curve {getattr(last, name)}"
    if any(set(point.scores) != {CURVE_SPLIT} for point in result.curve):
        return f"key 'curve': a point has scores of another split than {CURVE_SPLIT!r}"
    return None


def preset_config(result: Result) -> AgentConfig | None:
    """What the published preset of the result's agent resolves to on its family and budget; None where there is no such preset."""
    family = published_family(result)
    if family is None or result.agent.name not in agent_names() or result.budget not in BUDGETS:
        return None
    return resolve_agent(load_agent(result.agent.name), family.name, result.budget)


def published_family(result: Result) -> FamilyCard | None:
    """The published card of the result's family; None where there is none of this id."""
    return next((card for card in map(load_family, family_names()) if card.id == result.family.id), None)


def reference_of(result: Result) -> tuple[float, float] | None:
    """Returns of (blind, oracle): the published card's where the result was made with the same family, else the result's own."""
    card = published_family(result)
    if card is not None and card.digest == result.family.digest and card.reference is not None:
        return card.reference.blind, card.reference.oracle
    return result.family.reference
