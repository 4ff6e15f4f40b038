"""Two agents, several agents and curves, the training run being the unit of evidence: see `statistics.run_interval`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dmrlad_bench.cards import CardError
from dmrlad_bench.reports.statistics import FEWEST_RUNS, probability_of_improvement, run_means
from dmrlad_bench.reports.student import check_confidence, joined_variance, t_interval, t_quantile

HALVINGS = 60  # of the interval that a limit lies in: to the last digit


def difference_interval(x: ArrayLike, y: ArrayLike, confidence: float, paired: bool = False) -> tuple[float, float] | None:
    """Interval of the difference between two agents' mean scores.

    Args:
        x: `(runs, tasks)`.
        y: `(runs, tasks)`, the same tasks.
        confidence: as in `run_interval`.
        paired: rows belong together, as the same seeds do: the t interval of their differences. Otherwise Welch's interval.

    Returns:
        The ends `(low, high)`; None where an agent has fewer than three runs.
    """
    first, second = _both(x, y)
    check_confidence(confidence)
    if paired and len(first) != len(second):
        raise CardError(f"scores: paired runs come in equal numbers, got {len(first)} and {len(second)}")
    if min(len(first), len(second)) < FEWEST_RUNS:
        return None
    if paired:
        apart = first - second
        return t_interval(float(apart.mean()), float(apart.var(ddof=1)) / len(apart), len(apart) - 1, confidence)
    parts = [float(values.var(ddof=1)) / len(values) for values in (first, second)]
    variance, freedom = joined_variance(parts, [len(first), len(second)])
    return t_interval(float(first.mean() - second.mean()), variance, freedom, confidence)


def run_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Probability that a run of X scores higher than a run of Y: share of all pairs of runs, those that are equal counting half.

    Args:
        x: `(runs, tasks)`; a run's score is its mean over tasks.
        y: `(runs, tasks)`.
    """
    first, second = _both(x, y)
    return probability_of_improvement(first[:, None], second[:, None])


def run_improvement_interval(x: ArrayLike, y: ArrayLike, confidence: float) -> tuple[float, float] | None:
    """Newcombe's score interval of `run_improvement` (Statistics in Medicine 25, 2006, method 5), with a t quantile.

    It holds every probability p that lies within t sqrt(V(p)) of the share, where V(p) is the variance that the share has if p is the
    truth. So it keeps its width where all pairs go one way.

    Returns:
        The ends `(low, high)`; None where an agent has fewer than three runs.
    """
    runs = (len(run_means(x)), len(run_means(y)))
    share, reach = run_improvement(x, y), t_quantile(max(1, sum(runs) - 2), confidence)
    return None if min(runs) < FEWEST_RUNS else (_limit(share, 0.0, reach, runs), _limit(share, 1.0, reach, runs))


def _limit(share: float, end: float, reach: float, runs: tuple[int, int]) -> float:
    """The probability farthest from `share` towards `end` that the share does not speak against."""
    held, refuted = share, end
    for _ in range(HALVINGS):
        middle = (held + refuted) / 2.0
        if abs(share - middle) <= reach * np.sqrt(_variance_of_share(middle, runs)):
            held = middle
        else:
            refuted = middle
    return held


def _variance_of_share(probability: float, runs: tuple[int, int]) -> float:
    others = sum(runs) / 2.0 - 1.0
    both = others * (1.0 - probability) / (2.0 - probability) + others * probability / (1.0 + probability)
    return probability * (1.0 - probability) / (runs[0] * runs[1]) * (1.0 + both)


def run_band(curves: ArrayLike, confidence: float) -> tuple[np.ndarray, np.ndarray] | None:
    """t interval of the mean over runs at every point of `(runs, points)` curves, each point for itself.

    Returns:
        `(points,)` low and high; None under three runs.
    """
    values = np.asarray(curves, dtype=float)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise CardError(f"curves: expected a (runs, points) array of finite numbers, got shape {values.shape}")
    if len(values) < FEWEST_RUNS:
        return None
    reach = t_quantile(len(values) - 1, confidence) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return values.mean(axis=0) - reach, values.mean(axis=0) + reach


def shared_ranks(scores: Sequence[ArrayLike], seeds: Sequence[tuple[int, ...]], confidence: float) -> list[int | None]:
    """Rank of each agent: one more than the number of agents that are better by an interval of the difference that lies above 0.

    So agents that no interval parts from the best are all first. The intervals are pairwise, and not corrected for their number.

    Args:
        scores: `(runs, tasks)` of each agent, the same tasks.
        seeds: of each agent's runs, in the order of its rows; agents with the same seeds are compared in pairs of runs.
        confidence: of the intervals.

    Returns:
        None for an agent with fewer than three runs, which is not compared.
    """

    def better(one: int, other: int) -> bool:
        found = difference_interval(scores[one], scores[other], confidence, paired=seeds[one] == seeds[other])
        return found is not None and found[0] > 0.0

    agents = range(len(scores))
    return [
        None if len(seeds[agent]) < FEWEST_RUNS else 1 + sum(better(other, agent) for other in agents if other != agent) for agent in agents
    ]


def _both(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(x)[1:] != np.shape(y)[1:]:
        raise CardError(f"scores: both agents need the same tasks, got shapes {np.shape(x)} and {np.shape(y)}")
    return run_means(x), run_means(y)
