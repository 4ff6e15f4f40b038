"""Which runs a report is made of, and what must hold within one result: a file edited by hand does not pass."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
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
from dmrlad_bench.reports.leaderboard import Entry, content_digest, read_entry
from dmrlad_bench.reports.results import RESULT_FILE, Result, TrialMatrix, read_result

RUN_FILES = {RESULT_FILE, "config.toml"}
ENTRY_FILE = "*--*.json"  # <agent>--<budget>.json
ACCEPTED = f"accepted: run folders, {RESULT_FILE} files, leaderboard entries, and folders that hold any of them"


@dataclass(frozen=True)
class RecordedRun:
    """A result and where it came from, for messages."""

    source: str
    result: Result


def read_runs(given: Iterable[Any]) -> list[RecordedRun]:
    """Read finished runs.

    Args:
        given: results, runs (anything with a `folder`), leaderboard entries (anything with `runs`), or paths: of a run folder, of a
            `result.json`, of an entry's file, or of a folder that holds run folders and entries at any depth, which are taken in the
            order of their names.

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
    if isinstance(entry, Entry):
        return _of_entry(entry, f"entry of {entry.agent.name}")
    path = Path(getattr(entry, "folder", entry))
    if not path.exists():
        raise CardError(f"{path}: no such file or folder; {ACCEPTED}")
    if not path.is_dir():
        return _read_file(path)
    runs = [run for found in _below(path) for run in _read_file(found)]
    if not runs:
        raise CardError(f"{path}: holds no run; {ACCEPTED}")
    return runs


def _below(path: Path) -> Iterable[Path]:
    """Run folders and entries' files below a folder, in the order of their names."""
    for folder, below, files in os.walk(path):
        below.sort()
        if RUN_FILES & set(files):
            below.clear()
            yield Path(folder)
        else:
            yield from (Path(folder, name) for name in sorted(files) if fnmatch(name, ENTRY_FILE))


def _read_file(path: Path) -> list[RecordedRun]:
    """The runs of a run folder, of a `result.json`, or of an entry."""
    if path.is_dir() or not _is_entry(path):
        return [RecordedRun(str(path), read_result(path))]
    return _of_entry(read_entry(path), str(path))


def _is_entry(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False  # whoever reads it as a result says why it cannot be
    return isinstance(content, dict) and "runs" in content


def _of_entry(entry: Entry, source: str) -> list[RecordedRun]:
    """The runs of an entry, under the name that it was published by."""
    if entry.content_digest != content_digest(entry):
        raise CardError(f"{source}: changed after it was made: key 'content_digest' is not the digest of the content")
    runs = [run.model_copy(update={"agent": run.agent.model_copy(update={"name": entry.agent.name})}) for run in entry.runs]
    return [RecordedRun(f"{source}, seed {run.seed}", run) for run in runs]


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
