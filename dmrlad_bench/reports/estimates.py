"""A number with its interval over runs: what comparisons, leaderboards and figures are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from dmrlad_bench.protocol import normalised
from dmrlad_bench.reports.family_statistics import families_interval, mean_of_intervals, run_matrix
from dmrlad_bench.reports.results import ResultModel
from dmrlad_bench.reports.run_statistics import difference_interval, run_improvement, run_improvement_interval
from dmrlad_bench.reports.statistics import Statistic, interquartile_mean, mean_score, median_score, optimality_gap, run_interval, run_means

CONFIDENCE = 0.95
SEED_OF_INTERVALS = 0
NOT_BELOW_0, SHARE = (0.0, np.inf), (0.0, 1.0)
OVER_FAMILIES: dict[str, tuple[Statistic, tuple[float, float] | None]] = {
    "iqm": (interquartile_mean, None),
    "mean": (mean_score, None),
    "median": (median_score, None),
    "optimality_gap": (optimality_gap, NOT_BELOW_0),
}


class Estimate(ResultModel):
    """A number and its 95 % interval over runs; under three runs there is none."""

    value: float
    low: float | None
    high: float | None
    runs: int = Field(ge=1, description="how many it comes from; over families and of two agents, the smallest number")
    values: tuple[float, ...] = Field(description="of each run, in the order of seeds; empty over families and of two agents")


Ends = tuple[float, float] | None


def of_runs(scores: np.ndarray, bounds: Ends = None) -> Estimate:
    """The mean of `(runs, tasks)` scores; the interval ends at `bounds`, what the mean cannot exceed."""
    ends = run_interval(scores, mean_score, CONFIDENCE, _generator())
    return _estimate(mean_score(scores), ends, len(scores), tuple(run_means(scores).tolist()), bounds)


def measures(returns: np.ndarray, success: np.ndarray, reference: tuple[float, float] | None, episode: int) -> dict[str, Estimate]:
    """The estimates of one episode on one family; normalised scores and regret only where there is a reference.

    Args:
        returns: `(runs, tasks, K)`.
        success: `(runs, tasks, K)`, shares of trials.
        reference: mean returns of (blind, oracle).
        episode: counted from 0; the regret is that of all episodes up to it.
    """
    found = {"return": of_runs(returns[:, :, episode]), "success": of_runs(success[:, :, episode], SHARE)}
    if reference is None:
        return found
    lost = (reference[1] - returns[:, :, : episode % returns.shape[2] + 1]).sum(axis=2)
    return found | {"normalised": of_runs(normalised(returns[:, :, episode], reference)), "regret": of_runs(lost)}


def over_families(families: Sequence[np.ndarray], statistic: Statistic, bounds: Ends = None) -> Estimate:
    """A statistic of whole runs' scores over families, from `(runs, tasks)` of each; every family weighs the same."""
    ends = families_interval(families, statistic, CONFIDENCE, _generator())
    return _estimate(float(statistic(run_matrix(families))), ends, min(map(len, families)), (), bounds)


def difference(x: np.ndarray, y: np.ndarray, paired: bool) -> Estimate:
    """By how much the mean of `(runs, tasks)` scores `x` exceeds that of `y`; `paired` where rows are runs of the same seed."""
    ends = difference_interval(x, y, CONFIDENCE, paired)
    return _estimate(mean_score(x) - mean_score(y), ends, min(len(x), len(y)))


def improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Estimate:
    """Probability that a run of one agent scores higher than a run of the other: mean over families of `(x, y)`, `(runs, tasks)` each."""
    shares = [run_improvement(*pair) for pair in pairs]
    ends = mean_of_intervals(shares, [run_improvement_interval(*pair, CONFIDENCE) for pair in pairs])
    return _estimate(float(np.mean(shares)), ends, min(len(scores) for pair in pairs for scores in pair), bounds=SHARE)


def _estimate(value: float, ends: Ends, runs: int, values: tuple[float, ...] = (), bounds: Ends = None) -> Estimate:
    low, high = (None, None) if ends is None else ends
    if bounds is not None and low is not None and high is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value=value, low=low, high=high, runs=runs, values=values)


def _generator() -> np.random.Generator:
    return np.random.default_rng(SEED_OF_INTERVALS)  # the same scores always give the same interval
