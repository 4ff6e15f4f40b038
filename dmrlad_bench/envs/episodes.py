"""Episodes side by side: the task choice, reset and step that the single and the vector environment share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.envs.bodies import Body, MujocoBody
from dmrlad_bench.envs.changes import TaskChanges
from dmrlad_bench.envs.drawings import Drawing
from dmrlad_bench.envs.family import TaskFamily


@dataclass(frozen=True)
class Step:
    """What one step of all rows led to; every array has one row an environment.

    Attributes:
        observation: `(rows, observation_dim)` float64.
        reward: `(rows,)` float64, the family's own.
        terminated, truncated: `(rows,)` bool.
        info: `success` bool, `is_success` the same, `outcome` and `task` float32, `dense_reward` and `sparse_reward` float64.
    """

    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray]


class Episodes:
    """The state of `rows` episodes of one family: physics state, task and elapsed steps of each.

    Attributes:
        by_processes: whether several `threads` are processes, in which nothing can be drawn.
    """

    by_processes: ClassVar[bool] = False

    def __init__(self, family: TaskFamily, rows: int, *, split: str, task: Any, task_observable: bool, threads: int, horizon: int) -> None:
        self.family = family
        self.task_observable = task_observable
        self.split = split
        self._horizon = horizon
        self._body = family.make_body(threads)
        self._choices = family.tasks(split).astype(np.float32)
        self._fixed = None if task is None else self.chosen_task(task)
        changes = family.card.changes
        self._changes = None if changes is None else TaskChanges(changes, rows, family.horizon, self._choices)
        self._states: np.ndarray | None = None
        self.tasks = np.zeros((rows, family.task_dim), np.float32)
        self._elapsed = np.zeros(rows, dtype=np.int64)

    @property
    def observation_space(self) -> Box:
        """Of one environment; the task's entries come last where it is observable."""
        if not self.task_observable:
            return self.family.observation_space
        return Box(-np.inf, np.inf, (self.family.observation_dim + self.family.task_dim,), np.float64)

    def chosen_task(self, task: Any) -> np.ndarray:
        """The task that an index into the split or a value stands for, `(task_dim,)` float32.

        Integers are indices, floating-point numbers are values.

        Raises:
            CardError: an index out of range, a value of the wrong size or not finite, anything else.
        """
        family, count = self.family, len(self._choices)
        accepted = f"an integer index 0..{count - 1} of split {self.split!r}, or a value of {family.task_dim} float(s)"
        try:
            entries = np.asarray(task)
        except ValueError:  # ragged
            entries = np.empty(0, dtype=object)
        if entries.shape == () and np.issubdtype(entries.dtype, np.integer):
            if not 0 <= int(entries) < count:
                raise CardError(f"{family.id}: task index {int(entries)} is out of range; accepted: {accepted}")
            return self._choices[int(entries)]
        value = np.atleast_1d(entries)
        if not np.issubdtype(value.dtype, np.floating) or value.shape != (family.task_dim,) or not np.isfinite(value).all():
            raise CardError(f"{family.id}: task {' '.join(repr(task).split())} is not valid; accepted: {accepted}")
        family.check_task(value)
        return value.astype(np.float32)

    def reset(self, row: int, generator: np.random.Generator, task: Any = None) -> None:
        """Start an episode in one row.

        The task draw always takes one number from the generator, so that the initial state depends on the seed alone,
        not on the split or on who chose the task.
        """
        number = int(generator.random() * len(self._choices))
        chosen = self.chosen_task(task) if task is not None else self._fixed
        state = self._body.initial_state(generator)
        if self._states is None:
            self._states = np.zeros((len(self.tasks), len(state)))
        self._states[row] = state
        self.tasks[row] = self._choices[number] if chosen is None else chosen
        self._elapsed[row] = 0
        if self._changes is not None:
            same = np.flatnonzero((self._choices == self.tasks[row]).all(axis=1))
            self._changes.begin(row, generator, int(same[0]) if len(same) else number, self._progress()[row])

    def observe(self) -> np.ndarray:
        """Observations of all rows, `(rows, observation_dim)` float64."""
        observation = self._body.observe(self._state)
        return np.concatenate((observation, self.tasks), axis=1) if self.task_observable else observation

    def step(self, actions: Any, held: np.ndarray | None = None) -> Step:
        """Step all rows but the `held` ones, `(rows,)` bool, with actions `(rows, action_dim)`, which are clipped to [-1, 1].

        Raises:
            CardError: actions of the wrong shape or not finite.
        """
        family, state = self.family, self._state
        try:
            action = np.asarray(actions, dtype=np.float64)
        except (TypeError, ValueError):  # text, or rows of several lengths
            action = np.empty(0)
        accepted = f"{family.action_dim} finite numbers for each of {len(state)} environment(s)"
        if action.shape != (len(state), family.action_dim):
            raise CardError(f"{family.id}: action of shape {action.shape} is not valid; accepted: {accepted}")
        if not np.isfinite(action).all():
            raise CardError(f"{family.id}: action with an entry {action[~np.isfinite(action)][0]} is not valid; accepted: {accepted}")
        action = np.clip(action, -1.0, 1.0)
        next_state = self._next_state(state, action)
        self._elapsed += 1
        if held is not None and held.any():
            next_state[held] = state[held]
            self._elapsed[held] -= 1
        measured = [self._body.measure(name, state, next_state) for name in family.measures]
        outcome = np.concatenate((*measured, np.square(action).sum(axis=1, keepdims=True)), axis=1).astype(np.float32)
        self._states = next_state
        judged = family.judge(outcome, self.tasks)
        info = {
            "success": judged.success,
            "is_success": judged.success,  # the name that Stable-Baselines3 looks for
            "outcome": outcome,
            "task": self.tasks.copy(),
            "dense_reward": judged.dense_reward.astype(np.float64),
            "sparse_reward": judged.sparse_reward.astype(np.float64),
        }
        if self._changes is not None:
            self.tasks = self._changes.after_step(self.tasks, self._progress(), held)
        reward, terminated = judged.reward.astype(np.float64), self._body.terminated(next_state) & family.card.terminates
        return Step(self.observe(), reward, terminated, self._elapsed >= self._horizon, info)

    def _next_state(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        if not self.family.scaled:
            return self._body.step(state, action)
        assert isinstance(self._body, MujocoBody), "checked when the family was made"
        return self._body.step_scaled(state, action, self.family.scaled, self.tasks)

    def _progress(self) -> np.ndarray:
        """What decides when tasks change, `(rows, entries)`: where the bodies are in m, or the steps lived."""
        assert self._changes is not None
        return self._body.place(self._state) if self._changes.by_place else self._elapsed[:, None].astype(np.float64)

    @property
    def body(self) -> Body:
        """The body that steps."""
        return self._body

    def drawing(self, row: int) -> Drawing:
        """What shows one row."""
        return self._body.drawing(self._state[row])

    @property
    def started(self) -> bool:
        """Whether any row was ever reset."""
        return self._states is not None

    @property
    def _state(self) -> np.ndarray:
        assert self._states is not None, "reset comes before step; the environments check it"
        return self._states

    def close(self) -> None:
        """Give the body's threads back."""
        self._body.close()


def check_options(options: dict[str, Any] | None, accepted: tuple[str, ...], where: str) -> dict[str, Any]:
    """The reset options as a new dictionary; anything else and unknown keys raise `CardError`."""
    if options is not None and not isinstance(options, dict):
        raise CardError(f"{where}: reset options must be a dictionary or None, got {' '.join(repr(options).split())}")
    for key in options or {}:
        if key not in accepted:
            raise CardError(f"{where}: unknown reset option {key!r}{nearest(str(key), accepted)}; accepted: {', '.join(accepted)}")
    return dict(options or {})
