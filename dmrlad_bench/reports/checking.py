"""Checking the leaderboards: every number must follow from the runs, every file must be where it belongs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmrlad_bench.cards import CardError, FamilyCard, agent_names, family_names
from dmrlad_bench.reports.leaderboard import README, Entry, content_digest, entry_files, read_entry, remake
from dmrlad_bench.reports.leaderboard_tables import leaderboard_markdown
from dmrlad_bench.reports.publishing import protocol_fault
from dmrlad_bench.reports.reading import RecordedRun, check_result, published_family, reference_of
from dmrlad_bench.reports.results import Result

UNCOMPARED: Any = {"runs", "content_digest"}
TOLERANCE = 1e-9  # other processors add up in another order


def check_leaderboards(folder: Path) -> list[str]:
    """Every fault of a leaderboards folder, a line each; empty where all is well."""
    faults: list[str] = []
    entries: list[Entry] = []
    first: dict[str, Path] = {}
    for path in entry_files(folder):
        try:
            entry = read_entry(path)
        except CardError as error:
            faults.append(str(error))
            continue
        entries.append(entry)
        faults += [f"{path}: {fault}" for fault in _faults_of_entry(entry, path.relative_to(folder).as_posix())]
        for run in entry.runs:
            other = first.setdefault(_fingerprint(run), path)
            if other != path:
                faults.append(f"{path}: duplicate: the run of seed {run.seed} is also in {other}")
    if not faults:
        readme = folder / README
        if not readme.is_file() or readme.read_bytes() != leaderboard_markdown(entries).encode():
            faults.append(f"{readme}: not what the files give; write it with: dmrlad-bench leaderboard --markdown")
    return faults


def _faults_of_entry(entry: Entry, name: str) -> Iterator[str]:
    if name != entry.file_name:
        yield f"in the wrong place: its content belongs into {entry.file_name}"
    if entry.content_digest != content_digest(entry):
        yield "changed after it was made: key 'content_digest' is not the digest of the content"
        return
    card = published_family(entry.runs[0])
    if card is None or card.id != entry.family.id:
        yield f"unknown family {entry.family.id!r}; accepted: {', '.join(family_names())}"
        return
    if card.digest != entry.family.digest:
        yield f"unknown family digest {entry.family.digest!r}; {card.id} has {card.digest!r}"
        return
    if not entry.agent.preset and entry.agent.name in agent_names():
        yield f"agent {entry.agent.name!r}: the name of a published preset, and this is another configuration"
    for run in entry.runs:
        if fault := _fault_of_run(entry, run, card):
            yield f"seed {run.seed}: {fault}"
            return
    if len({_fingerprint(run) for run in entry.runs}) < len(entry.runs):
        yield "duplicate: the same run stands under several seeds"
    reference = reference_of(entry.runs[0])
    if entry.family.reference != reference:
        yield (
            f"reference scores are {entry.family.reference}, the card's are {reference}; "
            "make the aggregates again with: dmrlad-bench leaderboard --recompute"
        )
        return
    fault = _first_difference(entry.model_dump(exclude=UNCOMPARED), remake(entry, reference).model_dump(exclude=UNCOMPARED))
    if fault:
        yield f"does not follow from its runs: {fault}"


def _fault_of_run(entry: Entry, run: Result, card: FamilyCard) -> str | None:
    for name, found, expected in (
        ("family.id", run.family.id, entry.family.id),
        ("family.digest", run.family.digest, entry.family.digest),
        ("agent.digest", run.agent.digest, entry.agent.digest),
        ("budget", run.budget, entry.budget),
        *([("agent.name", run.agent.name, entry.agent.name)] if entry.agent.preset else []),
    ):
        if found != expected:
            return f"key {name!r} is {found!r}, the entry's is {expected!r}"
    if fault := protocol_fault(run, card):
        return f"not the whole protocol: {fault}"
    try:
        check_result(RecordedRun("its run", run))
    except CardError as error:
        return str(error)
    return None


def _fingerprint(run: Result) -> str:
    """The same for a run that was submitted again, under another seed or name: no two runs last the same time."""
    return repr((run.wall_seconds.total, run.environment_steps, [matrix.returns for matrix in run.final]))


def _first_difference(found: Any, expected: Any, where: str = "") -> str | None:
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(f"{where}.{key}" if where else str(key), found[key], expected[key]) for key in expected]
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(found) == len(expected):
        pairs = [(f"{where}.{number}", *pair) for number, pair in enumerate(zip(found, expected, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float):
        same = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        return None if same else f"key {where!r} is {found!r}, recomputed {expected!r}"
    else:
        return None if found == expected else f"key {where!r} is {found!r}, recomputed {expected!r}"
    return next((fault for name, one, other in pairs if (fault := _first_difference(one, other, name))), None)
