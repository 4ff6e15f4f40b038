"""Student's t interval, and the degrees of freedom of a sum of parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import stdtrit

from dmrlad_bench.cards import CardError


def check_confidence(confidence: float) -> None:
    """Raises `CardError` for what is no share between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise CardError(f"confidence: expected a number between 0 and 1, got {confidence}")


def t_quantile(freedom: float, confidence: float) -> float:
    """How many standard errors a two-sided interval reaches to either side, as 4.303 for two degrees of freedom and 0.95."""
    check_confidence(confidence)
    return float(stdtrit(freedom, (1.0 + confidence) / 2.0))


def t_interval(estimate: float, variance: float, freedom: float, confidence: float) -> tuple[float, float]:
    """Student t interval of an estimate with this variance and these degrees of freedom; no width without variance."""
    if variance <= 0.0:
        return estimate, estimate
    reach = t_quantile(freedom, confidence) * math.sqrt(variance)
    return estimate - reach, estimate + reach


def joined_variance(variances: Sequence[float], runs: Sequence[int]) -> tuple[float, float]:
    """Variance of a sum of independent parts, and its degrees of freedom after Welch and Satterthwaite.

    Args:
        variances: of each part.
        runs: that each part was estimated from.
    """
    total = sum(variances)
    weights = [(part / total) ** 2 / (count - 1) for part, count in zip(variances, runs, strict=True)] if total > 0.0 else [1.0]
    return total, 1.0 / sum(weights)
