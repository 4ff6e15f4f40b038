"""Aggregates over families, whose runs vary within each family for itself: see `statistics.run_interval` for one family."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dmrlad_bench.cards import CardError
from dmrlad_bench.reports.statistics import DRAWS, FEWEST_RUNS, Statistic, mean_score, on_each, run_means
from dmrlad_bench.reports.student import check_confidence, joined_variance, t_interval


def run_matrix(families: Sequence[ArrayLike]) -> np.ndarray:
    """`(rows, families)` scores of whole runs: what a statistic over families is computed from, a family being a task of the paper's.

    Args:
        families: `(runs, tasks)` of each family; a run counts with its mean over tasks. Where families have other numbers of runs, each
            run is repeated until all have as many rows, so that every family weighs the same.
    """
    return _aligned([run_means(scores) for scores in families])


def families_interval(
    families: Sequence[ArrayLike], statistic: Statistic, confidence: float, generator: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Interval of `statistic` of `run_matrix(families)` over training runs, which vary within each family for itself.

    The variances that the families' runs contribute add up, and so do their degrees of freedom, as Welch and Satterthwaite have it. For
    `mean_score` they are those of the run means; for any other statistic, whole runs are drawn anew, one family at a time.

    Args:
        families: `(runs, tasks)` of each family.
        statistic: from `(rows, families)` to a number.
        confidence: as in `run_interval`.
        generator: of the draws.
        draws: how often the runs of each family are drawn.

    Returns:
        The ends `(low, high)`; None where a family has fewer than three runs.
    """
    means = [run_means(scores) for scores in families]
    check_confidence(confidence)
    whole = _aligned(means)
    if min(map(len, means)) < FEWEST_RUNS:
        return None
    parts = []
    for number, own in enumerate(means):
        if statistic is mean_score:
            parts.append(float(own.var(ddof=1)) / len(own) / len(means) ** 2)
            continue
        drawn = own[generator.integers(0, len(own), size=(draws, len(own)))]
        values = on_each(statistic, _aligned([*means[:number], drawn, *means[number + 1 :]]))
        parts.append(float(np.var(values)) * len(own) / (len(own) - 1))
    return t_interval(float(statistic(whole)), *joined_variance(parts, [len(own) for own in means]), confidence)


def mean_of_intervals(values: Sequence[float], intervals: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Interval of the mean of independent estimates: their distances to either end add up as squares; None where one has none."""
    ends = [entry for entry in intervals if entry is not None]
    if len(ends) < len(intervals):
        return None
    mean = float(np.mean(values))
    below, above = (np.linalg.norm([value - entry[side] for value, entry in zip(values, ends, strict=True)]) for side in (0, 1))
    return mean - float(below) / len(ends), mean + float(above) / len(ends)


def _aligned(families: Sequence[np.ndarray]) -> np.ndarray:
    """`(..., rows, families)` from `(..., runs)` of each family; leading axes are shared."""
    if not families:
        raise CardError("families: expected at least one")
    rows = math.lcm(*(scores.shape[-1] for scores in families))
    repeated = [np.repeat(scores, rows // scores.shape[-1], axis=-1) for scores in families]
    return np.stack(np.broadcast_arrays(*repeated), axis=-1)
