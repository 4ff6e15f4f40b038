"""The ends of the normalised score, from finished runs of `random` and `oracle`, and writing them onto a family's card."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmrlad_bench.cards import CardError, FamilyCard
from dmrlad_bench.cards.reading import validate
from dmrlad_bench.reports.publishing import check_is_preset, check_publishable
from dmrlad_bench.reports.reading import RecordedRun

ENDS = ("random", "oracle")
DECIMALS = 4
REFERENCE_TABLE = re.compile(r"^\[reference\][^\n]*\n(?:[ \t]*(?:random|oracle)[ \t]*=[^\n]*(?:\n|\Z))*", re.MULTILINE)


@dataclass(frozen=True)
class MeasuredReference:
    """Mean returns of the last episode of the trial on the test tasks, over all seeds.

    Attributes:
        family: the family's id.
        random: of `random`.
        oracle: of `oracle`.
        origin: agents, budgets and seeds, one line.
    """

    family: str
    random: float
    oracle: float
    origin: str

    def toml(self) -> str:
        """The card's table."""
        return f"[reference]  # {self.origin}\nrandom = {self.random}\noracle = {self.oracle}\n"


def measure_references(runs: Sequence[RecordedRun]) -> list[MeasuredReference]:
    """The reference scores of every family among `runs`, which are runs of the presets `random` and `oracle`.

    Raises:
        CardError: another agent, a preset that was changed, not the whole protocol, one of the two missing, several budgets of one, a
            seed that is there twice, or an oracle that is not better than random.
    """
    for run in runs:
        if run.result.agent.name not in ENDS:
            raise CardError(f"{run.source}: a run of {run.result.agent.name!r}; reference scores are those of {' and '.join(ENDS)}")
        check_publishable(run)
        check_is_preset(run)
    families = dict.fromkeys(run.result.family.id for run in runs)
    return [_measure(family, [run for run in runs if run.result.family.id == family]) for family in families]


def _measure(family: str, runs: list[RecordedRun]) -> MeasuredReference:
    means, origins = {}, []
    for agent in ENDS:
        own = sorted((run for run in runs if run.result.agent.name == agent), key=lambda run: run.result.seed)
        if not own:
            raise CardError(f"family {family}: no run of {agent!r}; reference scores need runs of {' and '.join(ENDS)}")
        budgets = sorted({run.result.budget for run in own})
        if len(budgets) > 1:
            raise CardError(f"family {family}: runs of {agent!r} with several budgets: {', '.join(budgets)}; choose one")
        seeds = [run.result.seed for run in own]
        if len(set(seeds)) < len(seeds):
            raise CardError(f"family {family}: a seed of {agent!r} is there twice: {', '.join(run.source for run in own)}")
        means[agent] = round(float(np.mean([run.result.scores().mean_returns[-1] for run in own])), DECIMALS)
        origins.append(f"{agent}: budget {budgets[0]}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    if means["oracle"] <= means["random"]:
        raise CardError(f"family {family}: oracle must exceed random, got {means['oracle']} and {means['random']}")
    return MeasuredReference(family, means["random"], means["oracle"], "; ".join(origins))


def with_reference(card: str, reference: MeasuredReference, path: Path) -> str:
    """The text of a family card with these reference scores, everything else as it was.

    Args:
        card: the text as it is.
        reference: of the card's family.
        path: where the card lies, for messages.

    Raises:
        CardError: a card that is not valid.
    """
    table = reference.toml()
    found = REFERENCE_TABLE.search(card)
    changed = f"{card.rstrip()}\n\n{table}" if found is None else card[: found.start()] + table + card[found.end() :]
    before, after = (validate(FamilyCard, tomllib.loads(text), str(path)) for text in (card, changed))
    if after.digest != before.digest or after.id != reference.family:
        raise CardError(f"{path}: is not the card of {reference.family}, or its text cannot take a [reference] table")
    return changed
