"""Comparing agents from finished runs: estimates with intervals for each family, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.reports.arranging import by_score, ordered, renamed
from dmrlad_bench.reports.estimates import CONFIDENCE, OVER_FAMILIES, SHARE, Estimate, difference, improvement, measures, over_families
from dmrlad_bench.reports.mixing import Group, View, grouped
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.run_statistics import shared_ranks
from dmrlad_bench.reports.statistics import mean_score

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


NAMES_SHOWN = 4  # in the short form
DPI = 130  # of a figure


@dataclass(frozen=True, repr=False)
class Comparison:
    """Agents beside each other.

    Attributes:
        groups: the runs of each agent on each family.
        view: which scores are compared.
        mixed: what differs among the runs that should not; empty unless that was allowed.
        baseline: the agent that the others' probability of improvement is against.
        legend: the agents in the order in which figures list them.
    """

    groups: tuple[Group, ...]
    view: View
    mixed: tuple[str, ...]
    baseline: str
    legend: tuple[str, ...]

    def __repr__(self) -> str:
        count = sum(len(group.runs) for group in self.groups)
        runs = f"{count} {'run' if count == 1 else 'runs'}"
        mixed = ", MIXED" if self.mixed else ""
        return f"Comparison({runs} of {_counted(self.agents)} on {_counted(self.families)}; {self.view}{mixed})"

    def _repr_html_(self) -> str:
        from dmrlad_bench.reports.comparison_tables import comparison_tables

        return "\n".join(html_table(table.title, table.columns, table.rows, table.notes) for table in comparison_tables(self))

    def to_pandas(self) -> DataFrame:
        """Every number of the comparison, a row each, as `table("csv")` has them: `measure`, `value` and the ends of its interval."""
        from pandas import DataFrame  # half a second that only those who ask for it pay

        from dmrlad_bench.reports.comparison_tables import comparison_records

        return DataFrame(list(comparison_records(self)))

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Ids, in the order in which they came."""
        return tuple(dict.fromkeys(group.family for group in self.groups))

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """Labels, in the order in which they came."""
        return tuple(dict.fromkeys(group.label for group in self.groups))

    def of_family(self, family: str) -> tuple[Group, ...]:
        """The groups on one family, in the order of `agents`."""
        return tuple(sorted((group for group in self.groups if group.family == family), key=lambda group: self.agents.index(group.label)))

    def of_agent(self, agent: str) -> tuple[Group, ...]:
        """The groups of one agent, in the order of `families`."""
        return tuple(group for family in self.families for group in self.of_family(family) if group.label == agent)

    def measures(self, group: Group, episode: int) -> dict[str, Estimate]:
        """All estimates of a group in episode `episode`, counted from 0; the regret is that of all episodes up to it."""
        return measures(group.returns, group.success, group.reference, episode)

    def ranks(self, family: str) -> dict[str, int | None]:
        """Rank of each agent in its track on a family by its returns in episode K; agents that no interval parts share one.

        None for an agent with fewer than three runs, and for all where agents were scored on other tasks.
        """
        groups = self.of_family(family)
        if len({group.returns.shape[1] for group in groups}) > 1:
            return dict.fromkeys((group.label for group in groups), None)
        ranks: dict[str, int | None] = {}
        for track in dict.fromkeys(group.track for group in groups):
            members = [group for group in groups if group.track == track]
            found = shared_ranks([group.returns[:, :, -1] for group in members], [group.seeds for group in members], CONFIDENCE)
            ranks |= {group.label: rank for group, rank in zip(members, found, strict=True)}
        return ranks

    def difference(self, group: Group) -> Estimate | None:
        """By how much the group's return in episode K exceeds the baseline's; None where they cannot be compared."""
        other = self._baseline_of(group)
        return None if other is None else difference(*_last_returns(group, other), paired=group.seeds == other.seeds)

    def improvement(self, group: Group) -> Estimate | None:
        """Probability that a run of the group's agent has a higher return in episode K than one of the baseline's."""
        other = self._baseline_of(group)
        return None if other is None else improvement([_last_returns(group, other)])

    def overall(self, agent: str) -> dict[str, Estimate] | None:
        """Episode K's estimates over all families; None for an agent that has not run on all of them."""
        groups = self.of_agent(agent)
        if len(groups) < len(self.families):
            return None
        found = {"success": over_families([group.success[:, :, -1] for group in groups], mean_score, SHARE)}
        last = [scores[:, :, -1] for group in groups if (scores := group.normalised) is not None]
        if len(last) == len(groups):
            found |= {name: over_families(last, *statistic) for name, statistic in OVER_FAMILIES.items()}
        pairs = [_last_returns(group, other) for group in groups if (other := self._baseline_of(group)) is not None]
        if len(pairs) == len(groups):
            found["improvement"] = improvement(pairs)
        return found

    def table(self, format: str = "table") -> str:
        """The comparison as text: `table`, `markdown`, `csv` or `latex`."""
        from dmrlad_bench.reports.comparison_tables import comparison_text

        return comparison_text(self, format)

    def plot(
        self, path: Path | str | None = None, kind: str = "summary", *, size: tuple[float, float] | None = None, dpi: int = DPI
    ) -> Figure:
        """A figure of the comparison, written to `path` if there is one (`.png`, `.pdf` or `.svg`).

        Args:
            path: file to write.
            kind: `summary`, `learning`, `adaptation` or `profiles`.
            size: width and height in inches; as much as the panels need unless given.
            dpi: dots per inch of a `.png`.

        Raises:
            CardError: unknown kind or suffix, or a size or resolution that no figure has.
        """
        from dmrlad_bench.reports.plots import check_plot_path, check_size, comparison_figure, save_figure

        check_size(size, dpi)
        if path is not None:
            check_plot_path(path)
        figure = comparison_figure(self, kind, size)
        if path is not None:
            save_figure(figure, path, dpi)
        return figure

    def _baseline_of(self, group: Group) -> Group | None:
        """The baseline's group on the same family and tasks; returns are compared, so it needs no reference."""
        if group.label == self.baseline:
            return None
        other = next((entry for entry in self.of_family(group.family) if entry.label == self.baseline), None)
        return None if other is None or other.returns.shape[1] != group.returns.shape[1] else other


def _last_returns(group: Group, other: Group) -> tuple[np.ndarray, np.ndarray]:
    return group.returns[:, :, -1], other.returns[:, :, -1]


def _counted(names: tuple[str, ...]) -> str:
    """Names where they are few, else the first ones and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def compare(
    runs: Iterable[Any],
    *,
    split: str = "test",
    deterministic: bool = True,
    allow_mixed: bool = False,
    baseline: str | None = None,
    order: str | None = None,
    rename: Sequence[str] = (),
) -> Comparison:
    """Compare agents from finished runs.

    Args:
        runs: runs, results, leaderboard entries, or paths: of run folders, of `result.json` files, of entries, or of folders of them.
        split: `test`, `train` or `ood`.
        deterministic: scores of deterministic actions, or of stochastic ones.
        allow_mixed: compare runs of other budgets, families, configurations or protocols all the same; the tables say so.
        baseline: the agent that the others' probability of improvement is against; the first one unless given.
        order: of the agents: `given`, `score`, or names separated by commas, whom the others follow by score. Unless given, tables have
            them as they come, and legends by score.
        rename: `OLD=NEW` labels; the others of these options take the new ones. An agent's colour and marker stay.

    Raises:
        CardError: no runs, an unfinished or damaged one, the same run twice, no such split, runs that do not belong in one table, or an
            unknown agent in one of the options.
    """
    view = View(split, deterministic)
    groups, mixed = grouped(read_runs([runs] if isinstance(runs, str | Path) else runs), view, allow_mixed)
    groups = renamed(groups, rename)
    labels = tuple(dict.fromkeys(group.label for group in groups))
    if baseline is not None and baseline not in labels:
        raise CardError(f"unknown baseline {baseline!r}{nearest(baseline, labels)}; accepted: {', '.join(labels)}")
    baseline = labels[0] if baseline is None else baseline
    legend = by_score(groups)
    if order is not None:
        groups = ordered(groups, order)
        legend = dict.fromkeys(group.label for group in groups)
    return Comparison(tuple(groups), view, tuple(mixed), baseline, tuple(legend))
