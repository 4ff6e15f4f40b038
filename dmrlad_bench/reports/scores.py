"""Scores of the K-episode protocol: one return and one success for every task and every episode of its trial."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TrialScores:
    """One trial of K consecutive episodes in every task of a split.

    Attributes:
        split: `train`, `test` or `ood`.
        deterministic: whether the agent acted without noise.
        task_index: `(tasks,)` int, index into the split.
        returns: `(tasks, K)` sum of the family's rewards of each episode.
        success: `(tasks, K)` bool, by the family's success rule.
        reference: mean return of one episode of (random, oracle) on the test tasks, or None where not measured.
    """

    split: str
    deterministic: bool
    task_index: np.ndarray
    returns: np.ndarray
    success: np.ndarray
    reference: tuple[float, float] | None = None

    @property
    def episodes(self) -> int:
        """K, consecutive episodes in a task."""
        return self.returns.shape[1]

    @property
    def mean_returns(self) -> np.ndarray:
        """`(K,)` mean over tasks of each episode's return."""
        return self.returns.mean(axis=0)

    @property
    def success_rates(self) -> np.ndarray:
        """`(K,)` share of tasks in which each episode succeeded."""
        return self.success.mean(axis=0)

    @property
    def normalised(self) -> np.ndarray | None:
        """`(tasks, K)` (return - random) / (oracle - random), or None without reference scores."""
        if self.reference is None:
            return None
        random, oracle = self.reference
        return (self.returns - random) / (oracle - random)
