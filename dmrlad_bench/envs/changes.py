"""Tasks that change inside an episode: when, and to what. Everything that chance decides is drawn when an episode begins."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.cards.family import Changes


class TaskChanges:
    """The task sequences of `rows` episodes side by side.

    A segment ends where the body has come as far as the segment's length (`kind = "place"`, m from where the segment began) or
    after as many steps (`"time"`). Lengths are uniform on [every, every + spread]. The next task is any other one of the split,
    all equally likely: number (current + offset) mod n, with the offset drawn from 1..n-1. So a sequence is its first task and its
    offsets, which is what lets relabelling replace the first and keep the rest.
    """

    def __init__(self, changes: Changes, rows: int, longest: int, choices: np.ndarray) -> None:
        """Args: when tasks change; how many episodes; the most steps of one; the split's tasks `(n, task_dim)`."""
        self._changes, self._choices = changes, choices
        self._lengths = np.zeros((rows, longest))  # at most one change a step
        self._sequence = np.zeros((rows, longest), dtype=np.int64)
        self._segment = np.zeros(rows, dtype=np.int64)
        self._origin: np.ndarray | None = None
        self._rows = np.arange(rows)

    @property
    def by_place(self) -> bool:
        """Whether progress is where the body is; else it is steps."""
        return self._changes.kind == "place"

    def begin(self, row: int, generator: np.random.Generator, first: int, progress: np.ndarray) -> None:
        """Draw the sequence of one row's episode, whose first task is number `first` and which starts at `progress`, `(k,)`."""
        longest, others = self._sequence.shape[1], len(self._choices) - 1
        self._lengths[row] = self._changes.every + self._changes.spread * generator.random(longest)
        offsets = 1 + (generator.random(longest) * others).astype(np.int64)
        self._sequence[row] = (first + np.cumsum(offsets)) % len(self._choices)
        self._segment[row] = 0
        if self._origin is None:
            self._origin = np.zeros((len(self._rows), len(progress)))
        self._origin[row] = progress

    def after_step(self, tasks: np.ndarray, progress: np.ndarray, held: np.ndarray | None) -> np.ndarray:
        """Tasks in force from the next step on, a new array `(rows, task_dim)`, given those of this one.

        Args:
            tasks: `(rows, task_dim)`.
            progress: `(rows, k)` where the bodies are in m, or `(rows, 1)` steps lived.
            held: `(rows,)` bool, rows that were not stepped, or None.
        """
        assert self._origin is not None, "an episode begins before it is stepped"
        segment = np.minimum(self._segment, self._sequence.shape[1] - 1)
        due = np.sqrt(np.square(progress - self._origin).sum(axis=1)) >= self._lengths[self._rows, segment]
        if held is not None:
            due &= ~held
        self._origin[due] = progress[due]
        self._segment[due] += 1
        return np.where(due[:, None], self._choices[self._sequence[self._rows, segment]], tasks)
