"""Statistics of scores over seeds and tasks, as Agarwal et al. (arXiv 2108.13264) define them, and their intervals.

`scores` is a `(seeds, tasks)` array throughout: one row for each run, one column for each task. All tasks of a run are scores of one
trained agent, so the run is the unit of evidence, and `run_interval` takes whole rows. The intervals that draw the seeds of each task for
itself, `stratified_bootstrap` and its kind, are for scores that are independent between tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dmrlad_bench.cards import CardError
from dmrlad_bench.reports.student import check_confidence, t_interval

Statistic = Callable[[np.ndarray], float]
ENTRIES_AT_ONCE = 4_000_000  # resampled scores held in memory at a time
FEWEST_RUNS = 3  # two runs give a t interval of 12.7 standard errors: no information
LARGEST = 1e100  # squares of scores are added up
DRAWS = 2000  # of whole runs, for statistics that have no closed form


def mean_score(scores: ArrayLike) -> float:
    """Mean over seeds and tasks."""
    return float(_means(_checked(scores)))


def median_score(scores: ArrayLike) -> float:
    """Median over tasks of each task's mean over seeds."""
    return float(_medians(_checked(scores)))


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores; a quarter of them, rounded down, is cut off at either end.

    Args:
        scores: `(seeds, tasks)`.

    Raises:
        CardError: empty, not two-dimensional, or not finite; so do all functions here.
    """
    return float(_interquartile_means(_checked(scores)))


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> float:
    """How far the scores fall short of `target` on average; what lies above it counts as `target`."""
    return float(_optimality_gaps(_checked(scores), target))


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> np.ndarray:
    """`(n,)` share of runs, which are pairs of seed and task, that score above each of `(n,)` thresholds."""
    levels = np.asarray(thresholds, dtype=float)
    if levels.ndim != 1 or np.isnan(levels).any():
        raise CardError(f"thresholds: expected an (n,) array without NaN, got shape {levels.shape}")
    ordered = np.sort(_checked(scores), axis=None)
    return 1.0 - np.searchsorted(ordered, levels, side="right") / ordered.size


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Mean over tasks of P(X > Y) + P(X = Y) / 2, X and Y being scores of two agents in the same task.

    Args:
        x: `(seeds, tasks)`.
        y: `(seeds, tasks)`, the same tasks; the number of seeds may differ.
    """
    return float(_improvements(*_paired(x, y)))


def run_means(scores: ArrayLike) -> np.ndarray:
    """`(runs,)` means over tasks of `(runs, tasks)`: one score a run."""
    return _checked(scores).mean(axis=1)


def run_interval(
    scores: ArrayLike, statistic: Statistic, confidence: float, generator: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float] | None:
    """Interval of `statistic` over training runs, all tasks of a run together.

    For `mean_score` it is the Student t interval of the run means. For any other statistic, whole rows are drawn anew; the deviation of
    what is drawn, times sqrt(n / (n - 1)) for n runs, takes the place of the standard error in the t interval.

    Args:
        scores: `(runs, tasks)`.
        statistic: from `(runs, tasks)` to a number; those of this module are computed for all draws at once.
        confidence: how often the interval is to cover what infinitely many runs would give, as 0.95.
        generator: of the draws; not used for `mean_score`.
        draws: how often the runs are drawn.

    Returns:
        The ends `(low, high)`; None under three runs, which do not say how runs vary.
    """
    values = _checked(scores)
    check_confidence(confidence)
    runs = len(values)
    if runs < FEWEST_RUNS:
        return None
    if statistic is mean_score:
        means = run_means(values)
        return t_interval(float(means.mean()), float(means.var(ddof=1)) / runs, runs - 1, confidence)
    drawn = values[generator.integers(0, runs, size=(_repetitions(draws), runs))]
    variance = float(np.var(on_each(statistic, drawn))) * runs / (runs - 1)
    return t_interval(float(statistic(values)), variance, runs - 1, confidence)


def on_each(statistic: Statistic, drawn: np.ndarray) -> np.ndarray:
    """`(n,)` values of `statistic` on each of `(n, seeds, tasks)` scores."""
    batched = BATCHED.get(statistic)
    return np.array([float(statistic(entry)) for entry in drawn]) if batched is None else batched(drawn)


def stratified_bootstrap(
    scores: ArrayLike, statistic: Statistic, repetitions: int, confidence: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of `statistic` when the seeds of every task are drawn anew, each task for itself.

    Args:
        scores: `(seeds, tasks)`.
        statistic: from `(seeds, tasks)` to a number; those of this module are computed for all repetitions at once.
        repetitions: how often the scores are drawn.
        confidence: share of the drawn statistics within the interval, as 0.95.
        generator: of the draws.

    Returns:
        The ends `(low, high)`; `(nan, nan)` for one seed, which says nothing about how seeds vary.
    """
    return interval(bootstrap_distribution(scores, statistic, repetitions, generator), confidence)


def bootstrap_distribution(scores: ArrayLike, statistic: Statistic, repetitions: int, generator: np.random.Generator) -> np.ndarray:
    """`(repetitions,)` values of `statistic` on scores whose seeds are drawn anew within each task; NaN for one seed."""
    values = _checked(scores)
    if len(values) == 1:
        return np.full(_repetitions(repetitions), np.nan)
    return np.concatenate([on_each(statistic, drawn) for drawn in _draws(values, repetitions, generator)])


def improvement_distribution(x: ArrayLike, y: ArrayLike, repetitions: int, generator: np.random.Generator) -> np.ndarray:
    """`(repetitions,)` probabilities of improvement, the seeds of both agents drawn anew within each task; NaN where one has one seed."""
    first, second = _paired(x, y)
    if min(len(first), len(second)) == 1:
        return np.full(_repetitions(repetitions), np.nan)
    drawn = zip(_draws(first, repetitions, generator, len(second)), _draws(second, repetitions, generator, len(first)), strict=True)
    return np.concatenate([_improvements(one, other) for one, other in drawn])


def bootstrap_over_seeds(
    values: ArrayLike, repetitions: int, confidence: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile band of the mean over seeds of `(seeds, points)` curves, whole curves drawn anew.

    Returns:
        `(points,)` low and high; NaN for one seed.
    """
    curves = _checked(values)
    if len(curves) == 1:
        nothing = np.full(curves.shape[1], np.nan)
        return nothing, nothing
    chosen = generator.integers(0, len(curves), size=(_repetitions(repetitions), len(curves)))
    low, high = np.quantile(curves[chosen].mean(axis=1), _ends(confidence), axis=0)
    return low, high


def interval(distribution: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of a bootstrap distribution; `(nan, nan)` where it is NaN."""
    low, high = np.quantile(distribution, _ends(confidence))
    return float(low), float(high)


def _means(scores: np.ndarray) -> np.ndarray:
    return scores.mean(axis=(-2, -1))


def _medians(scores: np.ndarray) -> np.ndarray:
    return np.median(scores.mean(axis=-2), axis=-1)


def _interquartile_means(scores: np.ndarray) -> np.ndarray:
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def _optimality_gaps(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    return target - np.minimum(scores, target).mean(axis=(-2, -1))


def _improvements(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    difference = np.sign(x[..., :, None, :] - y[..., None, :, :])
    return (1.0 + difference.mean(axis=(-3, -2, -1))) / 2.0


BATCHED: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    mean_score: _means,
    median_score: _medians,
    interquartile_mean: _interquartile_means,
    optimality_gap: _optimality_gaps,
}


def _draws(scores: np.ndarray, repetitions: int, generator: np.random.Generator, weight: int = 1) -> Iterator[np.ndarray]:
    """`(part, seeds, tasks)` drawn scores, part by part, so that many repetitions fit into memory."""
    seeds, tasks = scores.shape
    left, size = _repetitions(repetitions), max(1, ENTRIES_AT_ONCE // (scores.size * weight))
    while left:
        part = min(size, left)
        chosen = generator.integers(0, seeds, size=(part, seeds, tasks))
        yield scores[chosen, np.arange(tasks)]
        left -= part


def _paired(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = _checked(x), _checked(y)
    if first.shape[1] != second.shape[1]:
        raise CardError(f"scores: both agents need the same tasks, got {first.shape[1]} and {second.shape[1]}")
    return first, second


def _checked(scores: ArrayLike) -> np.ndarray:
    try:
        values = np.asarray(scores, dtype=float)
    except (TypeError, ValueError):
        raise CardError("scores: expected a (seeds, tasks) array of numbers, as many tasks in every row") from None
    if values.ndim != 2:
        raise CardError(f"scores: expected a (seeds, tasks) array, got shape {values.shape}")
    if values.size == 0:
        raise CardError(f"scores: expected at least one seed and one task, got shape {values.shape}")
    if not np.isfinite(values).all():
        seed, task = np.argwhere(~np.isfinite(values))[0]
        raise CardError(f"scores: expected finite numbers, got {values[seed, task]} in row {seed}, column {task}")
    if np.abs(values).max() > LARGEST:
        seed, task = np.argwhere(np.abs(values) > LARGEST)[0]
        raise CardError(f"scores: expected numbers up to {LARGEST:g}, got {values[seed, task]:g} in row {seed}, column {task}")
    return values


def _repetitions(repetitions: int) -> int:
    if repetitions < 1:
        raise CardError(f"repetitions: expected at least 1, got {repetitions}")
    return repetitions


def _ends(confidence: float) -> list[float]:
    check_confidence(confidence)
    return [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
