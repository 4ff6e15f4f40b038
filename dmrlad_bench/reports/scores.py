"""Scores of the K-episode protocol: a return and a success for every task, trial and episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmrlad_bench.protocol import normalised


@dataclass(frozen=True)
class TrialScores:
    """Trials of K consecutive episodes in every task of a split.

    Attributes:
        split: `train`, `validation`, `test` or `ood`.
        deterministic: whether the agent acted without noise.
        task_index: `(tasks,)` int, index into the split.
        trial_returns: `(tasks, trials, K)` sum of the family's rewards of each episode.
        trial_success: `(tasks, trials, K)` bool, by the family's success rule.
        reference: mean returns of one episode of (blind, oracle) on the test tasks, or None where not measured.
    """

    split: str
    deterministic: bool
    task_index: np.ndarray
    trial_returns: np.ndarray
    trial_success: np.ndarray
    reference: tuple[float, float] | None = None

    @property
    def trials(self) -> int:
        """Trials in each task."""
        return self.trial_returns.shape[1]

    @property
    def episodes(self) -> int:
        """K, consecutive episodes of a trial."""
        return self.trial_returns.shape[2]

    @property
    def returns(self) -> np.ndarray:
        """`(tasks, K)` returns, means over the trials of a task."""
        return self.trial_returns.mean(axis=1)

    @property
    def success(self) -> np.ndarray:
        """`(tasks, K)` share of the trials of a task in which each episode succeeded."""
        return self.trial_success.mean(axis=1)

    @property
    def mean_returns(self) -> np.ndarray:
        """`(K,)` mean over tasks of each episode's return."""
        return self.returns.mean(axis=0)

    @property
    def success_rates(self) -> np.ndarray:
        """`(K,)` share of trials in which each episode succeeded."""
        return self.success.mean(axis=0)

    @property
    def normalised(self) -> np.ndarray | None:
        """`(tasks, K)` (return - blind) / (oracle - blind), or None without reference scores."""
        return None if self.reference is None else normalised(self.returns, self.reference)

    @property
    def regret(self) -> float | None:
        """(oracle - return) summed over the episodes of a trial, mean over tasks: what finding out cost; None without reference."""
        if self.reference is None:
            return None
        return float((self.reference[1] - self.returns).sum(axis=1).mean())
