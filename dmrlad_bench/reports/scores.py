"""Scores of the K-episode protocol: a return and a success for every task, trial and episode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dmrlad_bench.cards.html import html_table
from dmrlad_bench.protocol import normalised

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        returns = ", ".join(f"{value:.2f}" for value in self.mean_returns)
        success = ", ".join(f"{value:.2f}" for value in self.success_rates)
        return f"TrialScores({self._what()}: mean returns [{returns}], success [{success}])"

    def _repr_html_(self) -> str:
        scores = self.normalised
        columns = ["episode", "mean return", "success"] + ([] if scores is None else ["normalised"])
        rows: list[list[object]] = []
        for episode in range(self.episodes):
            rows.append([episode + 1, f"{self.mean_returns[episode]:.2f}", f"{self.success_rates[episode]:.3f}"])
            if scores is not None:
                rows[-1].append(f"{scores[:, episode].mean():.3f}")
        return html_table(self._what(), columns, rows)

    def _what(self) -> str:
        actions = "deterministic" if self.deterministic else "stochastic"
        trials = f"{self.trials} trial{'s' if self.trials > 1 else ''} of {self.episodes} episodes"
        return f"{len(self.task_index)} {self.split} tasks, {trials}, {actions} actions"

    def to_pandas(self) -> DataFrame:
        """A row for each task, trial and episode, counted from 1.

        Columns: `split`, `deterministic`, `task` (its index), `trial`, `episode`, `return`, `success`.

        `normalised` comes last where there are reference scores.
        """
        from pandas import DataFrame  # half a second that only those who ask for it pay

        tasks, trials, episodes = self.trial_returns.shape
        columns = {
            "split": self.split,
            "deterministic": self.deterministic,
            "task": np.repeat(self.task_index, trials * episodes),
            "trial": np.tile(np.repeat(np.arange(1, trials + 1), episodes), tasks),
            "episode": np.tile(np.arange(1, episodes + 1), tasks * trials),
            "return": self.trial_returns.ravel(),
            "success": self.trial_success.ravel(),
        }
        if self.reference is not None:
            columns["normalised"] = normalised(self.trial_returns, self.reference).ravel()
        return DataFrame(columns)
