"""Names and order of the agents of a comparison, as whoever shows it wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.reports.mixing import Group

GIVEN, SCORE = "given", "score"


def renamed(groups: Sequence[Group], names: Sequence[str]) -> list[Group]:
    """The groups under other labels, `OLD=NEW` each; their looks stay.

    Raises:
        CardError: not of that form, no such agent, one renamed twice, or a label that two agents would have.
    """
    labels = list(dict.fromkeys(group.label for group in groups))
    new: dict[str, str] = {}
    for text in names:
        old, equals, label = (part.strip() for part in text.partition("="))
        if not equals or not old or not label or not label.isprintable():
            raise CardError(f"rename {text!r}: expected OLD=NEW, as dmrlad=DMRLAD")
        if old not in labels:
            raise CardError(f"rename {text!r}: no agent {old!r} here{nearest(old, labels)}; accepted: {', '.join(labels)}")
        if old in new:
            raise CardError(f"rename {text!r}: {old!r} is renamed twice")
        new[old] = label
    given = [new.get(label, label) for label in labels]
    for label in given:
        if given.count(label) > 1:
            raise CardError(f"rename: two agents would be called {label!r}")
    return [replace(group, label=new.get(group.label, group.label)) for group in groups]


def ordered(groups: Sequence[Group], order: str) -> list[Group]:
    """The groups with the agents in another order: `given`, `score`, or names separated by commas, whom the others follow by score.

    Raises:
        CardError: no such agent, or one that is named twice.
    """
    labels = list(dict.fromkeys(group.label for group in groups))
    first = [] if order in (GIVEN, SCORE) else [part.strip() for part in order.split(",")]
    for number, name in enumerate(first):
        if name not in labels:
            known = ", ".join([*labels, f"or {GIVEN} or {SCORE}"])
            raise CardError(f"order {order!r}: no agent {name!r} here{nearest(name, labels)}; accepted: {known}")
        if name in first[:number]:
            raise CardError(f"order {order!r}: {name!r} is named twice")
    if order == GIVEN:
        return list(groups)
    agents = [*first, *(label for label in by_score(groups) if label not in first)]
    families = list(dict.fromkeys(group.family for group in groups))
    return sorted(groups, key=lambda group: (families.index(group.family), agents.index(group.label)))


def by_score(groups: Sequence[Group]) -> list[str]:
    """Labels, the best first: by the return in the last episode on one family, by the mean of the places on several."""
    places: dict[str, list[int]] = {}
    for family in dict.fromkeys(group.family for group in groups):
        own = [group for group in groups if group.family == family]
        means = {group.label: float(group.returns[:, :, -1].mean()) for group in own}
        for group in own:
            places.setdefault(group.label, []).append(sum(mean > means[group.label] for mean in means.values()))
    return sorted(places, key=lambda label: float(np.mean(places[label])))
