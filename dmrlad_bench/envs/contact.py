"""Stepping MuJoCo models with their contact forces, which `mujoco.rollout` does not give."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np


class ContactStepper:
    """Steps a batch of states of one model and adds up the contact forces at the end of each step.

    Rows are shared among threads. Python only starts each row: MuJoCo's functions release the interpreter's lock, so rows run side
    by side. A row starts without warm start, as in `mujoco.rollout`, and gets the same next state to the last bit.
    """

    def __init__(self, model: Any, frame_skip: int, threads: int) -> None:
        self._mujoco = import_module("mujoco")
        self._model, self._frame_skip = model, frame_skip
        self._physics = int(self._mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self._data = [self._mujoco.MjData(model) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def step(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Next states `(n, state_dim)` and contact `(n, 1)`, the sum of the squared external forces and torques (N, N m) on
        all bodies, each clipped to [-1, 1] as in Gymnasium's Ant-v5."""
        next_state, contact = np.empty_like(state), np.empty((len(state), 1))

        def run(share: tuple[Any, np.ndarray]) -> None:
            data, rows = share
            for row in rows:
                contact[row] = self._step_row(data, state[row], action[row], next_state[row])

        shares = zip(self._data, np.array_split(np.arange(len(state)), len(self._data)), strict=True)
        for _ in map(run, shares) if self._pool is None else self._pool.map(run, shares):
            pass
        return next_state, contact

    def _step_row(self, data: Any, state: np.ndarray, action: np.ndarray, next_state: np.ndarray) -> float:
        mujoco = self._mujoco
        mujoco.mj_setState(self._model, data, state, self._physics)
        data.qacc_warmstart[:] = 0
        data.ctrl[:] = action
        mujoco.mj_step(self._model, data, self._frame_skip)
        mujoco.mj_rnePostConstraint(self._model, data)
        mujoco.mj_getState(self._model, data, next_state, self._physics)
        return float(np.square(np.clip(data.cfrc_ext, -1.0, 1.0)).sum())

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()
