"""Episodes that Meta-World's own environments live, one for each row, in this process or in others.

Those environments keep state in attributes, so what an episode has come to is held as its task and actions, and lived again where an
environment is copied or unpickled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.drawings import Drawing
from dmrlad_bench.envs.episodes import Episodes, Step
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.metaworld import MetaWorld
from dmrlad_bench.envs.metaworld_simulators import STATE, Simulators
from dmrlad_bench.envs.metaworld_workers import Workers


class MetaWorldEpisodes(Episodes):
    """`Episodes` whose rows Meta-World's own environments live, in this process or in as many as `threads` says."""

    by_processes = True

    def __init__(self, family: TaskFamily, rows: int, *, split: str, task: Any, task_observable: bool, threads: int, horizon: int) -> None:
        self._known = {tuple(known) for name in family.splits for known in family.tasks(name).astype(np.float32).tolist()}
        super().__init__(family, rows, split=split, task=task, task_observable=task_observable, threads=threads, horizon=horizon)
        self._processes = min(threads, rows)
        self._simulators: Simulators | Workers | None = None
        self._lived: list[list[np.ndarray]] = [[] for _ in range(rows)]
        self._begun: set[int] = set()
        self._held: np.ndarray | None = None

    def chosen_task(self, task: Any) -> np.ndarray:
        """As for other families, but a value must be one of the family's tasks: Meta-World hangs on starts that it would not draw."""
        chosen = super().chosen_task(task)
        if tuple(chosen.tolist()) not in self._known:
            raise CardError(f"{self.family.id}: task {task!r} is not valid; accepted: an integer index, or the value of a task on the card")
        return chosen

    def reset(self, row: int, generator: np.random.Generator, task: Any = None) -> None:
        drawn = self._choices[int(generator.random() * len(self._choices))]
        chosen = self.chosen_task(task) if task is not None else self._fixed
        if self._states is None:
            self._states = np.zeros((len(self.tasks), STATE))
        simulators = self._ready()  # before the row changes: what was lived may have to be lived again
        self.tasks[row] = drawn if chosen is None else chosen
        self._elapsed[row] = 0
        self._lived[row] = []
        self._begun.add(row)
        simulators.begin(row, self.tasks[row].astype(np.float64))

    def observe(self) -> np.ndarray:
        self._collect()
        return super().observe()

    def step(self, actions: Any, held: np.ndarray | None = None) -> Step:
        self._collect()
        self._held = held
        return super().step(actions, held)

    def _next_state(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        rows = np.arange(len(state)) if self._held is None else np.flatnonzero(~self._held)
        next_state = state.copy()
        next_state[rows] = self._ready().step(rows.tolist(), action[rows])
        for row in rows.tolist():
            self._lived[row].append(action[row].copy())
        return next_state

    def drawing(self, row: int) -> Drawing:
        """What shows one row, which this process must live: where pictures are asked for, `threads` is 1."""
        simulators = self._ready()
        assert isinstance(simulators, Simulators), "processes draw nothing"
        return simulators.drawing(row)

    def _collect(self) -> None:
        """Wait for the episodes that were begun; all processes start theirs at the same time."""
        if self._simulators is not None and self._states is not None:
            for row, state in self._ready().started().items():
                self._states[row] = state

    def _ready(self) -> Simulators | Workers:
        """The simulators, where they were left; a copy or a forked process makes its own and lives the episodes again."""
        if isinstance(self._simulators, Workers) and not self._simulators.own:
            self.close()
        if self._simulators is None:
            self._simulators = Simulators() if self._processes == 1 else Workers(self._processes)
            for row in sorted(self._begun):
                self._simulators.begin(row, self.tasks[row].astype(np.float64))
            for row, state in self._simulators.started().items():
                if self._states is not None and not self._lived[row]:  # a fork may have come before the first state was asked for
                    self._states[row] = state
            for row in sorted(self._begun):
                for action in self._lived[row]:
                    self._simulators.step([row], action[None])
        return self._simulators

    def close(self) -> None:
        """End the processes."""
        if self._simulators is not None:
            self._simulators.close()
            self._simulators = None

    def __getstate__(self) -> dict[str, Any]:
        self._collect()
        return {**self.__dict__, "_simulators": None}


def episodes_of(family: TaskFamily) -> type[Episodes]:
    """The class of a family's episodes."""
    return MetaWorldEpisodes if isinstance(family.make_body(), MetaWorld) else Episodes
