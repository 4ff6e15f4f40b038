"""Gymnasium's legged bodies besides the half cheetah: hopper, walker and ant, each with its v5 model, reset and falling rule."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmrlad_bench.envs.bodies import MujocoBody
from dmrlad_bench.envs.contact import ContactStepper

VELOCITY_LIMIT = 10.0  # Hopper-v5 and Walker2d-v5 clip observed velocities
SMALL_NOISE = 5e-3  # their reset_noise_scale
ANT_NOISE = 0.1  # Ant-v5's
STANDING = (0.2, 1.0)  # m, Ant-v5's healthy_z_range


class _PlanarBody(MujocoBody):
    """What hopper and walker share: they move in the x-z plane and hide the x position."""

    measures = ("forward_velocity",)

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return cls.positions + cls.velocities - 1

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        position = self.simulator.model.qpos0 + generator.uniform(-SMALL_NOISE, SMALL_NOISE, self.positions)
        velocity = generator.uniform(-SMALL_NOISE, SMALL_NOISE, self.velocities)
        return np.concatenate(([0.0], position, velocity))

    def observe(self, state: np.ndarray) -> np.ndarray:
        velocity = np.clip(state[..., 1 + self.positions :], -VELOCITY_LIMIT, VELOCITY_LIMIT)
        return np.concatenate((state[..., 2 : 1 + self.positions], velocity), axis=-1)

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        return (next_state[..., 1:2] - state[..., 1:2]) / self.step_duration


class Hopper(_PlanarBody):
    """Gymnasium's Hopper-v5: same model, frame skip, observation, reset noise and falling rule; 0.008 s a step.

    Observation: qpos without the x position (5), qvel clipped to [-10, 10] (6). It has fallen when its height is at most 0.7 m,
    its angle 0.2 rad or more, or any other entry of its state 100 or more.
    """

    model_file = "hopper.xml"
    frame_skip = 4
    step_duration = 0.008
    positions = 6
    velocities = 6
    action_dim = 3
    physics_sizes = {"mass": 4, "inertia": 4, "friction": 5, "damping": 3}

    def terminated(self, state: np.ndarray) -> np.ndarray:
        height, angle = state[..., 2], state[..., 3]
        in_bounds = (np.abs(state[..., 3:]) < 100.0).all(axis=-1)  # as in Gymnasium: from the angle on
        return ~(in_bounds & (height > 0.7) & (np.abs(angle) < 0.2))


class Walker2d(_PlanarBody):
    """Gymnasium's Walker2d-v5: same model, frame skip, observation, reset noise and falling rule; 0.008 s a step.

    Observation: qpos without the x position (8), qvel clipped to [-10, 10] (9). It has fallen when its height leaves (0.8, 2) m or
    its angle (-1, 1) rad.
    """

    model_file = "walker2d_v5.xml"
    frame_skip = 4
    step_duration = 0.008
    positions = 9
    velocities = 9
    action_dim = 6
    physics_sizes = {"mass": 7, "inertia": 7, "friction": 8, "damping": 6}

    def terminated(self, state: np.ndarray) -> np.ndarray:
        height, angle = state[..., 2], state[..., 3]
        return ~((height > 0.8) & (height < 2.0) & (np.abs(angle) < 1.0))


class Ant(MujocoBody):
    """Gymnasium's Ant-v5: same model, frame skip, reset noise and falling rule, and its observation without contact forces; 0.05 s
    a step.

    Observation: qpos without the x and y position (13), qvel (14); the extra `planar_position` puts the two first. It has fallen
    when its height leaves [0.2, 1] m.

    Where the reward has a contact cost, states have one entry more: the contact of the step that led there.
    """

    model_file = "ant.xml"
    frame_skip = 5
    step_duration = 0.05
    positions = 15
    velocities = 14
    action_dim = 8
    place_dim = 2
    measures = ("forward_velocity", "planar_position", "contact")
    extras = ("planar_position",)

    def __init__(self, observation_extras: tuple[str, ...] = (), threads: int = 1, contact: bool = False) -> None:
        super().__init__(observation_extras, threads)
        self._contact = contact
        self._stepper: ContactStepper | None = None

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return cls.positions + cls.velocities - 2 * ("planar_position" not in observation_extras)

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        position = self.simulator.model.qpos0 + generator.uniform(-ANT_NOISE, ANT_NOISE, self.positions)
        velocity = ANT_NOISE * generator.standard_normal(self.velocities)
        return np.concatenate(([0.0], position, velocity, [0.0] if self._contact else []))

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        if not self._contact:
            return super().step(state, action)
        if self._stepper is None:
            self._stepper = ContactStepper(self.simulator.model, self.frame_skip, self.threads)
        return np.concatenate(self._stepper.step(state[:, :-1], action), axis=1)

    def observe(self, state: np.ndarray) -> np.ndarray:
        hidden = 1 if "planar_position" in self.observation_extras else 3  # time always, x and y unless asked for
        return state[..., hidden : 1 + self.positions + self.velocities].copy()

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        if name == "contact":
            return next_state[..., -1:]
        if name == "planar_position":
            return next_state[..., 1:3]
        return (next_state[..., 1:2] - state[..., 1:2]) / self.step_duration

    def terminated(self, state: np.ndarray) -> np.ndarray:
        height = state[..., 3]
        return ~(np.isfinite(state).all(axis=-1) & (height >= STANDING[0]) & (height <= STANDING[1]))

    def close(self) -> None:
        super().close()
        if self._stepper is not None:
            self._stepper.close()
            self._stepper = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_stepper": None}
