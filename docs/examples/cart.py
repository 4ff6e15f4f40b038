"""A body for cards to name: a cart on a rail, with friction."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.envs.bodies import Body

STEP_DURATION = 0.1  # s
FORCE = 2.0  # m/s^2 at full action
FRICTION = 1.0  # 1/s


class Cart(Body):
    """A cart on a rail. State: position (m), velocity (m/s). Observation: the velocity."""

    action_dim = 1
    measures = ("forward_velocity",)

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return 1

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        return np.array([0.0, 0.1 * generator.standard_normal()])

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        velocity = state[:, 1:] + STEP_DURATION * (FORCE * action - FRICTION * state[:, 1:])
        return np.concatenate((state[:, :1] + STEP_DURATION * velocity, velocity), axis=1)

    def observe(self, state: np.ndarray) -> np.ndarray:
        return state[:, 1:].copy()

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        return (next_state[:, :1] - state[:, :1]) / STEP_DURATION
