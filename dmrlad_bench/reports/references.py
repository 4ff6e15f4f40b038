"""The ends of the normalised score, from finished runs, and writing them with their sources onto a family's card."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmrlad_bench.cards import AgentConfig, CardError, FamilyCard
from dmrlad_bench.cards.family import Reference, ReferenceSource
from dmrlad_bench.cards.reading import read_toml, validate
from dmrlad_bench.reports.publishing import CONFIG_FILE, check_is_preset, check_publishable
from dmrlad_bench.reports.reading import RecordedRun, preset_config

AGENTS = ("random", "still", "blind", "oracle")
UNADAPTED = ("still", "blind")  # agents, of which the better is the reference `blind`
DECIMALS = 4
FEWEST_ORACLES = 3
FEWEST_ORACLE_STEPS = 1_000_000
HEADER = re.compile(r"[ \t]*\[+[ \t]*([\w.\-\" \t]+?)[ \t]*\]+[ \t]*(#.*)?$")


@dataclass(frozen=True)
class MeasuredReference:
    """Mean returns of the last episode of the trial on the test tasks, each the mean of its runs, and where they come from.

    Attributes:
        family: the family's id.
        reference: the card's table.
        short: what the oracle's runs lack, in words; None where they are enough.
    """

    family: str
    reference: Reference
    short: str | None = None

    def toml(self) -> str:
        """The card's tables."""
        found = self.reference
        lines = ["[reference]", *(f"{name} = {getattr(found, name)}" for name in ("random", "blind", "oracle"))]
        for name, source in found.sources.items():
            lines += ["", f"[reference.sources.{name}]", f'agent = "{source.agent}"', f'budget = "{source.budget}"']
            lines += [f'digest = "{source.digest}"', f"seeds = {list(source.seeds)}", f"runs = {list(source.runs)}"]
        return "\n".join(lines) + "\n"


def measure_references(runs: Sequence[RecordedRun]) -> list[MeasuredReference]:
    """The reference scores of every family among `runs`, which are runs of the presets `random`, `still`, `blind` and `oracle`.

    An oracle's schedule may be another than its preset's, since it trains until its curve is flat.

    Raises:
        CardError: another agent, a preset that was changed, not the whole protocol, one of the four missing, several budgets of one, a
            seed that is there twice, or an oracle that is not better than blind.
    """
    for run in runs:
        name = run.result.agent.name
        if name not in AGENTS:
            raise CardError(f"{run.source}: a run of {name!r}; reference scores are those of {', '.join(AGENTS[:-1])} and {AGENTS[-1]}")
        check_publishable(run)
        if name != "oracle" or not _trained_otherwise(run):
            check_is_preset(run)
    families = dict.fromkeys(run.result.family.id for run in runs)
    return [_measure(family, [run for run in runs if run.result.family.id == family]) for family in families]


def _trained_otherwise(run: RecordedRun) -> bool:
    """Whether the run folder says that nothing but the preset's schedule is other."""
    path, preset = Path(run.source) / CONFIG_FILE, preset_config(run.result)
    if preset is None or not path.is_file():
        return False
    config = validate(AgentConfig, read_toml(path).get("agent") or {}, f"{path}: key 'agent'")
    same = config.model_copy(update={"schedule": preset.schedule}).digest == preset.digest
    return same and config.digest == run.result.agent.digest and config.schedule != preset.schedule


def _measure(family: str, runs: list[RecordedRun]) -> MeasuredReference:
    sources = {agent: _source(family, agent, [run for run in runs if run.result.agent.name == agent]) for agent in AGENTS}
    oracles = [run.result for run in runs if run.result.agent.name == "oracle"]
    short = _short([run.environment_steps for run in oracles])
    if short is not None:
        oracle = sources["oracle"]
        sources["oracle"] = oracle.model_copy(update={"budget": f"{oracle.budget} (short: {short})"})
    blind = max(UNADAPTED, key=lambda agent: _mean(sources[agent]))
    chosen = {"random": sources["random"], "blind": sources[blind], "oracle": sources["oracle"]}
    means = {name: _mean(source) for name, source in chosen.items()}
    if means["oracle"] <= means["blind"]:
        raise CardError(f"family {family}: oracle must exceed blind ({blind}), got {means['oracle']} and {means['blind']}")
    return MeasuredReference(family, Reference(**means, sources=chosen), short)  # pyright: ignore[reportArgumentType]


def _source(family: str, agent: str, runs: list[RecordedRun]) -> ReferenceSource:
    own = sorted(runs, key=lambda run: run.result.seed)
    if not own:
        needed = f"reference scores need runs of {', '.join(AGENTS[:-1])} and {AGENTS[-1]}"
        raise CardError(f"family {family}: no run of {agent!r}; {needed}")
    budgets = sorted({run.result.budget for run in own})
    if len(budgets) > 1:
        raise CardError(f"family {family}: runs of {agent!r} with several budgets: {', '.join(budgets)}; choose one")
    digests = sorted({run.result.agent.digest for run in own})
    if len(digests) > 1:
        raise CardError(f"family {family}: runs of {agent!r} with several configurations: {', '.join(digests)}; choose one")
    seeds = [run.result.seed for run in own]
    if len(set(seeds)) < len(seeds):
        raise CardError(f"family {family}: a seed of {agent!r} is there twice: {', '.join(run.source for run in own)}")
    means = tuple(round(float(run.result.scores().mean_returns[-1]), DECIMALS) for run in own)
    return ReferenceSource(agent=agent, budget=budgets[0], digest=digests[0], seeds=tuple(seeds), runs=means)


def _mean(source: ReferenceSource) -> float:
    return round(float(np.mean(source.runs)), DECIMALS)


def _short(steps: Sequence[int]) -> str | None:
    """What oracle runs of so many environment steps lack."""
    few = f"{len(steps)} runs of at least {FEWEST_ORACLES}" if len(steps) < FEWEST_ORACLES else None
    brief = f"{min(steps)} steps of at least {FEWEST_ORACLE_STEPS}" if min(steps) < FEWEST_ORACLE_STEPS else None
    return ", ".join(part for part in (few, brief) if part) or None


def with_reference(card: str, reference: MeasuredReference, path: Path) -> str:
    """The text of a family card with these reference scores, everything else as it was.

    Args:
        card: the text as it is.
        reference: of the card's family.
        path: where the card lies, for messages.

    Raises:
        CardError: a card that is not valid.
    """
    kept, place = _without_reference(card.splitlines(keepends=True))
    table = reference.toml()
    above, below = ("".join(kept).rstrip() + "\n\n", "") if place is None else ("".join(kept[:place]), "".join(kept[place:]))
    changed = above + table + below
    before, after = (validate(FamilyCard, tomllib.loads(text), str(path)) for text in (card, changed))
    same = after.model_dump(exclude={"reference"}) == before.model_dump(exclude={"reference"})
    if not same or after.id != reference.family or after.reference != reference.reference:
        raise CardError(f"{path}: is not the card of {reference.family}, or its text cannot take a [reference] table")
    return changed


def _without_reference(lines: list[str]) -> tuple[list[str], int | None]:
    """The lines without the tables `reference` and `reference.*`, and where the first of them stood.

    Blank lines and comments behind the last key of the last of them belong to what follows.
    """
    kept: list[str] = []
    pending: list[str] = []  # blank lines and comments of the table, until it is known what they belong to
    place: int | None = None
    inside, depth = False, 0
    for line in lines:
        header = HEADER.match(line.rstrip("\n")) if depth == 0 else None
        if header:
            inside = header[1].replace('"', "").split(".")[0].strip() == "reference"
            if inside:
                place = len(kept) if place is None else place
            else:
                kept += pending
            pending = []
        if not inside:
            kept.append(line)
            continue
        if depth == 0 and not header and (not line.strip() or line.lstrip().startswith("#")):
            pending.append(line)
        elif not header:
            code = line.partition("#")[0]
            depth += code.count("[") - code.count("]")
            pending = []
    return kept + pending, place
