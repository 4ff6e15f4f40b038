"""Physics as a task: a task multiplies numbers of a MuJoCo model. One compiled model a task, kept; nothing is recompiled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

BASES = {"mass": 1.5, "inertia": 1.5, "friction": 1.5, "damping": 1.3}  # a multiplier is base^exponent
MODELS_KEPT = 256  # more than a family has tasks; tasks given by value may be any number


def task_size(scaled: Sequence[str], sizes: dict[str, int]) -> int:
    """Entries of a task that multiplies these parameters of a body that has `sizes` of each."""
    return sum(sizes[name] for name in scaled)


def exponents(tasks: np.ndarray, scaled: Sequence[str], sizes: dict[str, int]) -> np.ndarray:
    """Exponents that give the multipliers `(tasks, task_dim)`, by the base of each; NaN where a multiplier is not positive."""
    bases = np.concatenate([np.full(sizes[name], BASES[name]) for name in scaled])
    return np.log(np.where(tasks > 0, tasks, np.nan)) / np.log(bases)


class ScaledModels:
    """The models of tasks, made from one compiled model by writing its fields, and kept.

    A task lists, for every parameter in `scaled` and in this order: `mass` and `inertia`, one multiplier a body but the world
    (one for all three axes, so that an inertia stays one that a body can have); `friction`, one a geom, the floor included,
    since MuJoCo takes the larger friction of two geoms in contact; `damping`, one a joint that is damped.
    """

    def __init__(self, model: Any, scaled: Sequence[str]) -> None:
        self._model = model
        self._scaled = tuple(scaled)
        self._mujoco = import_module("mujoco")
        self._damped = np.flatnonzero(model.dof_damping > 0)
        self._models: dict[bytes, Any] = {}
        self._tasks = np.empty((0, 0))
        self._current: list[Any] = []

    @property
    def sizes(self) -> dict[str, int]:
        """How many multipliers each parameter takes."""
        bodies, geoms = self._model.nbody - 1, self._model.ngeom
        return {"mass": bodies, "inertia": bodies, "friction": geoms, "damping": len(self._damped)}

    def of(self, tasks: np.ndarray) -> list[Any]:
        """The models of tasks `(n, task_dim)`; where the tasks are those of the last call, so is the list."""
        if not np.array_equal(tasks, self._tasks):
            self._current = [self._kept(task) for task in tasks]
            self._tasks = tasks.copy()
        return self._current

    def _kept(self, task: np.ndarray) -> Any:
        key = task.tobytes()
        model = self._models.pop(key, None)  # put back at the end: the one not used for longest stands first
        self._models[key] = self._made(task) if model is None else model
        if len(self._models) > MODELS_KEPT:
            del self._models[next(iter(self._models))]
        return self._models[key]

    def _made(self, task: np.ndarray) -> Any:
        model, sizes, multipliers, start = copy.copy(self._model), self.sizes, task.astype(np.float64), 0
        for name in self._scaled:
            factor = multipliers[start : start + sizes[name]]
            start += sizes[name]
            if name == "mass":
                model.body_mass[1:] *= factor
            elif name == "inertia":
                model.body_inertia[1:] *= factor[:, None]
            elif name == "friction":
                model.geom_friction[:] *= factor[:, None]
            else:
                model.dof_damping[self._damped] *= factor
        self._mujoco.mj_setConst(model, self._mujoco.MjData(model))  # what MuJoCo derives from mass and inertia
        return model
