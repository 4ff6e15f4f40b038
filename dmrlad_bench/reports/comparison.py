"""Comparing agents from finished runs: estimates with intervals for each family, and over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.reports.mixing import Group, View, grouped
from dmrlad_bench.reports.reading import read_runs
from dmrlad_bench.reports.statistics import (
    Statistic,
    bootstrap_distribution,
    improvement_distribution,
    interquartile_mean,
    interval,
    mean_score,
    median_score,
    optimality_gap,
    probability_of_improvement,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

REPETITIONS = 2000
CONFIDENCE = 0.95
NAMES_SHOWN = 4  # in the short form
SEED_OF_INTERVALS = 0
NORMALISED: dict[str, Statistic] = {
    "iqm": interquartile_mean,
    "mean": mean_score,
    "median": median_score,
    "optimality_gap": optimality_gap,
}


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval; the ends are NaN for one seed."""

    value: float
    low: float
    high: float


def estimate(scores: np.ndarray, statistic: Statistic) -> Estimate:
    """`statistic` of `(seeds, tasks)` with its stratified bootstrap interval; the same scores always give the same."""
    return Estimate(float(statistic(scores)), *interval(_distribution(scores, statistic), CONFIDENCE))


def measures(returns: np.ndarray, success: np.ndarray, normalised: np.ndarray | None) -> dict[str, Estimate]:
    """All estimates of one episode from `(seeds, tasks)` arrays; those of normalised scores only where there are any."""
    found = {"return": estimate(returns, mean_score), "success": estimate(success, mean_score)}
    if normalised is not None:
        found |= {name: estimate(normalised, statistic) for name, statistic in NORMALISED.items()}
    return found


def _distribution(scores: np.ndarray, statistic: Statistic) -> np.ndarray:
    return bootstrap_distribution(scores, statistic, REPETITIONS, np.random.default_rng(SEED_OF_INTERVALS))


def _over_families(values: list[float], distributions: list[np.ndarray]) -> Estimate:
    """Mean over families, each drawn for itself and weighing the same, whatever its number of seeds and tasks."""
    return Estimate(float(np.mean(values)), *interval(np.mean(distributions, axis=0), CONFIDENCE))


@dataclass(frozen=True, repr=False)
class Comparison:
    """Agents beside each other.

    Attributes:
        groups: the runs of each agent on each family.
        view: which scores are compared.
        mixed: what differs among the runs that should not; empty unless that was allowed.
        baseline: the agent that the others' probability of improvement is against.
    """

    groups: tuple[Group, ...]
    view: View
    mixed: tuple[str, ...]
    baseline: str

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
        """All estimates of a group in episode `episode`, counted from 0."""
        normalised = group.normalised
        return measures(
            group.returns[:, :, episode], group.success[:, :, episode], None if normalised is None else normalised[:, :, episode]
        )

    def improvement(self, group: Group) -> Estimate | None:
        """Probability that the group's agent scores higher in episode K than the baseline; None where they cannot be paired."""
        paired = self._paired(group)
        if paired is None:
            return None
        return Estimate(probability_of_improvement(*paired), *interval(self._improvements(paired), CONFIDENCE))

    def overall(self, agent: str) -> dict[str, Estimate] | None:
        """Episode K's estimates over all families; None for an agent that has not run on all of them."""
        groups = self.of_agent(agent)
        if len(groups) < len(self.families):
            return None
        found = {"success": _overall([group.success[:, :, -1] for group in groups], mean_score)}
        normalised = [group.normalised for group in groups]
        if all(scores is not None for scores in normalised):
            last = [scores[:, :, -1] for scores in normalised if scores is not None]
            found |= {name: _overall(last, statistic) for name, statistic in NORMALISED.items()}
        pairs = [pair for group in groups if (pair := self._paired(group)) is not None]
        if len(pairs) == len(groups):
            values = [probability_of_improvement(*pair) for pair in pairs]
            found["improvement"] = _over_families(values, [self._improvements(pair) for pair in pairs])
        return found

    def table(self, format: str = "table") -> str:
        """The comparison as text: `table`, `markdown`, `csv` or `latex`."""
        from dmrlad_bench.reports.comparison_tables import comparison_text

        return comparison_text(self, format)

    def plot(self, path: Path | str | None = None, kind: str = "summary") -> Figure:
        """A figure of the comparison, written to `path` if there is one (`.png`, `.pdf` or `.svg`).

        Args:
            path: file to write.
            kind: `summary`, `learning`, `adaptation` or `profiles`.

        Raises:
            CardError: unknown kind or suffix.
        """
        from dmrlad_bench.reports.plots import check_plot_path, comparison_figure, save_figure

        if path is not None:
            check_plot_path(path)
        figure = comparison_figure(self, kind)
        if path is not None:
            save_figure(figure, path)
        return figure

    def _paired(self, group: Group) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns in episode K of the group and of the baseline on its family; ranks need no reference."""
        if group.label == self.baseline:
            return None
        other = next((entry for entry in self.of_family(group.family) if entry.label == self.baseline), None)
        if other is None or other.returns.shape[1] != group.returns.shape[1]:
            return None
        return group.returns[:, :, -1], other.returns[:, :, -1]

    def _improvements(self, pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        return improvement_distribution(*pair, REPETITIONS, np.random.default_rng(SEED_OF_INTERVALS))


def _counted(names: tuple[str, ...]) -> str:
    """Names where they are few, else the first ones and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _overall(scores: list[np.ndarray], statistic: Statistic) -> Estimate:
    return _over_families([float(statistic(entry)) for entry in scores], [_distribution(entry, statistic) for entry in scores])


def compare(
    runs: Iterable[Any], *, split: str = "test", deterministic: bool = True, allow_mixed: bool = False, baseline: str | None = None
) -> Comparison:
    """Compare agents from finished runs.

    Args:
        runs: runs, results, or paths: of run folders, of `result.json` files, or of folders that hold run folders.
        split: `test`, `train` or `ood`.
        deterministic: scores of deterministic actions, or of stochastic ones.
        allow_mixed: compare runs of other budgets, families, configurations or protocols all the same; the tables say so.
        baseline: the agent that the others' probability of improvement is against; the first one unless given.

    Raises:
        CardError: no runs, an unfinished or damaged one, the same run twice, no such split, runs that do not belong in one table, or an
            unknown baseline.
    """
    view = View(split, deterministic)
    groups, mixed = grouped(read_runs([runs] if isinstance(runs, str | Path) else runs), view, allow_mixed)
    labels = tuple(dict.fromkeys(group.label for group in groups))
    if baseline is not None and baseline not in labels:
        raise CardError(f"unknown baseline {baseline!r}{nearest(baseline, labels)}; accepted: {', '.join(labels)}")
    return Comparison(tuple(groups), view, tuple(mixed), labels[0] if baseline is None else baseline)
