"""Checking the leaderboards: every number must follow from the runs, every file must be where it belongs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmrlad_bench.cards import CardError, FamilyCard, agent_names, family_names, load_agent, load_family, resolve_agent
from dmrlad_bench.reports.leaderboard import README, Entry, content_digest, entry_files, read_entry, remake
from dmrlad_bench.reports.leaderboard_tables import leaderboard_markdown
from dmrlad_bench.reports.plausibility import copied, doubled, implausible
from dmrlad_bench.reports.publishing import protocol_fault
from dmrlad_bench.reports.reading import RecordedRun, check_result, reference_of
from dmrlad_bench.reports.register import REGISTER, Known, is_known, read_register
from dmrlad_bench.reports.results import Result

UNCOMPARED: Any = {"runs", "content_digest"}
TOLERANCE = 1e-9  # other processors add up in another order


def check_leaderboards(folder: Path) -> list[str]:
    """Every fault of a leaderboards folder, a line each; empty where all is well."""
    faults: list[str] = []
    entries: dict[Path, Entry] = {}  # those without fault
    register: Known = {}
    try:
        register = read_register(folder)
    except CardError as error:
        faults.append(str(error))
    for path in entry_files(folder):
        try:
            entry = read_entry(path)
        except CardError as error:
            faults.append(str(error))
            continue
        found = list(_faults_of_entry(entry, path.relative_to(folder).as_posix(), register))
        if not found and path.read_bytes() != entry.json_text().encode():  # a digit beyond what a float holds
            found.append("changed after it was made: not the text that submit writes")
        if not found and (duplicate := copied(entry, list(entries.values()))):
            run, other = duplicate
            where = next(place for place, known in entries.items() if known is other)
            found.append(f"duplicate: the run of seed {run.seed} is also in {where}")
        if found:
            faults += [f"{path}: {fault}" for fault in found]
        else:
            entries[path] = entry
    if not faults:
        readme = folder / README
        if not readme.is_file() or readme.read_bytes() != leaderboard_markdown(list(entries.values())).encode():
            faults.append(f"{readme}: not what the files give; write it with: dmrlad-bench leaderboard --markdown")
    return faults


def _faults_of_entry(entry: Entry, name: str, register: Known) -> Iterator[str]:
    if name != entry.file_name:
        yield f"in the wrong place: its content belongs into {entry.file_name}"
        return
    if entry.content_digest != content_digest(entry):
        yield "changed after it was made: key 'content_digest' is not the digest of the content"
        return
    card = next((card for card in map(load_family, family_names()) if card.id == entry.family.id), None)
    if card is None:
        yield f"unknown family {entry.family.id!r}; accepted: {', '.join(family_names())}"
        return
    if card.digest != entry.family.digest:
        yield f"unknown family digest {entry.family.digest!r}; {card.id} has {card.digest!r}"
        return
    if fault := _fault_of_name(entry, card, register):
        yield fault
        return
    for run in entry.runs:
        if fault := _fault_of_run(entry, run, card):
            yield f"seed {run.seed}: {fault}"
            return
    if fault := doubled(entry):
        yield fault
        return
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


def _fault_of_name(entry: Entry, card: FamilyCard, register: Known) -> str | None:
    """A preset's name belongs to what was published under it: today's card, or one that the register lists."""
    agent = entry.agent
    if not agent.preset:
        if agent.name in agent_names():
            return f"agent {agent.name!r}: the name of a published preset, and this is another configuration"
        return None if entry.about.authors else f"agent {agent.name!r}: key 'about.authors' is empty, and it is no published preset"
    if agent.name in agent_names() and resolve_agent(load_agent(agent.name), card.name, entry.budget).digest == agent.digest:
        return None
    if is_known(register, agent.name, card.name, entry.budget, agent.digest):
        return None
    return f"agent {agent.name!r}: no preset of that name was ever published with digest {agent.digest!r} (not today's, not in {REGISTER})"


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
    return implausible(entry, run, card)


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
