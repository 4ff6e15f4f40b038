"""Meta-World's own environments by row, in this process; `metaworld_workers` runs them in others."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmrlad_bench.envs.drawings import Drawing
from dmrlad_bench.envs.metaworld import CLASSES, OBSERVATION

STATE = OBSERVATION + 2  # observation, reward, success
IDLE = 60  # environments kept for later episodes, all classes together


class Simulators:
    """One environment for each row; those of classes that a row has left are kept for the next who need one."""

    def __init__(self) -> None:
        self._of_row: dict[int, tuple[int, Any]] = {}
        self._idle: OrderedDict[int, tuple[int, Any]] = OrderedDict()  # by id, the longest idle first
        self._started: dict[int, np.ndarray] = {}

    def begin(self, row: int, task: np.ndarray) -> None:
        """Start an episode of `task`, `(7,)` float64, in a row."""
        number = int(task[0])
        if row in self._of_row:
            left = self._of_row.pop(row)
            self._idle[id(left[1])] = left
        environment = self._take(number)
        self._of_row[row] = number, environment
        size = environment._random_reset_space.shape[0]
        data = {"rand_vec": task[1 : 1 + size].copy(), "env_cls": type(environment), "partially_observable": True}
        environment.set_task(_task_type()(f"{CLASSES[number]}-v3", pickle.dumps(data)))
        observation, _ = environment.reset()
        self._started[row] = np.concatenate((observation, [0.0, 0.0]))

    def started(self) -> dict[int, np.ndarray]:
        """First states `(STATE,)` of the episodes begun since the last call, by row."""
        started, self._started = self._started, {}
        return started

    def step(self, rows: Sequence[int], actions: np.ndarray) -> np.ndarray:
        """States `(len(rows), STATE)` after actions `(len(rows), 4)`."""
        states = np.empty((len(rows), STATE))
        for number, (row, action) in enumerate(zip(rows, actions, strict=True)):
            observation, reward, _, _, info = self._of_row[row][1].step(action)
            states[number, :OBSERVATION], states[number, OBSERVATION:] = observation, (reward, info["success"])
        return states

    def drawing(self, row: int) -> Drawing:
        """The scene that a row lives in, as it stands, and Meta-World's goal there."""
        environment = self._of_row[row][1]
        return Drawing(environment.model, environment.data.qpos.copy(), environment._target_pos.copy())

    def _take(self, number: int) -> Any:
        for key, (other, environment) in self._idle.items():
            if other == number:
                del self._idle[key]
                return environment
        while len(self._idle) >= IDLE:
            self._idle.popitem(last=False)[1][1].close()
        return _new(number)

    def close(self) -> None:
        """Free the environments."""
        for _, environment in (*self._of_row.values(), *self._idle.values()):
            environment.close()
        self._of_row.clear()
        self._idle.clear()


def _new(number: int) -> Any:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # here: the import takes seconds

    environment: Any = ALL_V3_ENVIRONMENTS[f"{CLASSES[number]}-v3"]()
    environment.max_path_length = np.inf  # the card's horizon ends episodes
    return environment


def _task_type() -> Any:
    from metaworld.types import Task

    return Task
