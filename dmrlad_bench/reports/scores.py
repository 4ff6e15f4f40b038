"""Scores of the K-episode protocol: one return and one success for every task and every episode of its trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dmrlad_bench.cards.html import html_table

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        returns = ", ".join(f"{value:.2f}" for value in self.mean_returns)
        success = ", ".join(f"{value:.2f}" for value in self.success_rates)
        return f"TrialScores({self._what()}: mean returns [{returns}], success [{success}])"

    def _repr_html_(self) -> str:
        normalised = self.normalised
        columns = ["episode", "mean return", "success"] + ([] if normalised is None else ["normalised"])
        rows: list[list[object]] = []
        for episode in range(self.episodes):
            rows.append([episode + 1, f"{self.mean_returns[episode]:.2f}", f"{self.success_rates[episode]:.3f}"])
            if normalised is not None:
                rows[-1].append(f"{normalised[:, episode].mean():.3f}")
        return html_table(self._what(), columns, rows)

    def _what(self) -> str:
        actions = "deterministic" if self.deterministic else "stochastic"
        return f"{len(self.returns)} {self.split} tasks, {self.episodes} episodes, {actions} actions"

    def to_pandas(self) -> DataFrame:
        """One row for each task and episode: `split`, `deterministic`, `task` (its index), `episode` (from 1), `return`, `success`.

        `normalised` comes last where there are reference scores.
        """
        from pandas import DataFrame  # half a second that only those who ask for it pay

        tasks, episodes = self.returns.shape
        columns = {
            "split": self.split,
            "deterministic": self.deterministic,
            "task": np.repeat(self.task_index, episodes),
            "episode": np.tile(np.arange(1, episodes + 1), tasks),
            "return": self.returns.ravel(),
            "success": self.success.ravel(),
        }
        if self.normalised is not None:
            columns["normalised"] = self.normalised.ravel()
        return DataFrame(columns)
