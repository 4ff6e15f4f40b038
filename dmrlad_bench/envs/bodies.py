"""Bodies: physics without tasks. A body is stateless; whoever steps it holds the states, one row an environment.

The single environment steps a batch of one and the vector environment a batch of many through the same functions, so the
two agree to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

STEP_OF_THE_POINT = 0.1  # m per step and axis at full action
RESET_NOISE = 0.1  # HalfCheetah-v5's reset_noise_scale


class Body(ABC):
    """Physics of one body.

    Attributes:
        action_dim: entries of an action; actions lie in [-1, 1].
        measures: what goal kinds may ask of the body.
        extras: observation extras that a card may ask for.
    """

    action_dim: ClassVar[int]
    measures: ClassVar[tuple[str, ...]]
    extras: ClassVar[tuple[str, ...]] = ()

    def __init__(self, observation_extras: tuple[str, ...] = (), threads: int = 1) -> None:
        """Args: `observation_extras`, out of `extras`; `threads`, native threads a step may use."""
        self.observation_extras = observation_extras
        self.threads = threads

    @classmethod
    @abstractmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        """Entries of an observation with these extras."""

    @abstractmethod
    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        """Draw one initial state, `(state_dim,)`."""

    @abstractmethod
    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Next states `(n, state_dim)` from states `(n, state_dim)` and actions `(n, action_dim)` in [-1, 1]."""

    @abstractmethod
    def observe(self, state: np.ndarray) -> np.ndarray:
        """Observations `(n, observation_dim)` of states, a new array."""

    @abstractmethod
    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        """Measure one of `measures` over a step, `(n, entries)`."""

    def terminated(self, state: np.ndarray) -> np.ndarray:
        """Which states end the episode, `(n,)` bool."""
        return np.zeros(len(state), dtype=bool)

    def close(self) -> None:  # noqa: B027 (most bodies hold nothing)
        """Give threads and memory back; a later step takes them again."""


class Point(Body):
    """A point in the plane that starts at the origin. State and observation: position (x, y) in m."""

    action_dim = 2
    measures = ("planar_position",)

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return 2

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        return np.zeros(2)

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return state + STEP_OF_THE_POINT * action

    def observe(self, state: np.ndarray) -> np.ndarray:
        return state.copy()

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        return next_state


class MujocoBody(Body):
    """A MuJoCo model stepped by `mujoco.rollout`, whose threads live as long as the body.

    State: MuJoCo's full physics state (time, qpos, qvel). `mujoco.rollout` starts every call without warm start, so a state
    is all there is to know: the next one does not depend on what was simulated before.

    Attributes:
        model_file: file among the models packaged with Gymnasium.
        frame_skip: simulator steps per environment step.
        step_duration: s per environment step.
        positions, velocities: sizes of qpos and qvel.
    """

    model_file: ClassVar[str]
    frame_skip: ClassVar[int]
    step_duration: ClassVar[float]
    positions: ClassVar[int]
    velocities: ClassVar[int]

    def __init__(self, observation_extras: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__(observation_extras, threads)
        self._simulator: _Simulator | None = None

    @property
    def simulator(self) -> _Simulator:
        """The model, its threads and their buffers; opened on first use."""
        if self._simulator is None:
            self._simulator = _Simulator(self.model_file, self.frame_skip, self.threads)
        return self._simulator

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return self.simulator.step(state, action)

    def positions_of(self, state: np.ndarray) -> np.ndarray:
        """qpos of states, `(n, positions)`."""
        return state[..., 1 : 1 + self.positions]

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_simulator": None}  # threads cannot be pickled or copied; the copy opens its own


class HalfCheetah(MujocoBody):
    """Gymnasium's HalfCheetah-v5: same model, frame skip, observation and reset noise; 0.05 s a step.

    Observation: qpos without the x position (8), qvel (9); the extra `x_position` puts the x position first.
    """

    model_file = "half_cheetah.xml"
    frame_skip = 5
    step_duration = 0.05
    positions = 9
    velocities = 9
    action_dim = 6
    measures = ("forward_velocity",)
    extras = ("x_position",)

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return cls.positions + cls.velocities - ("x_position" not in observation_extras)

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        position = self.simulator.model.qpos0 + generator.uniform(-RESET_NOISE, RESET_NOISE, self.positions)
        velocity = RESET_NOISE * generator.standard_normal(self.velocities)
        return np.concatenate(([0.0], position, velocity))

    def observe(self, state: np.ndarray) -> np.ndarray:
        hidden = 1 if "x_position" in self.observation_extras else 2  # time always, x unless asked for
        return state[..., hidden:].copy()

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        return (self.positions_of(next_state)[..., :1] - self.positions_of(state)[..., :1]) / self.step_duration


class _Simulator:
    """One MuJoCo model, the threads that step it, and the buffers for one batch size."""

    def __init__(self, model_file: str, frame_skip: int, threads: int) -> None:
        mujoco = import_module("mujoco")  # here, so that `import dmrlad_bench` stays light
        rollout = import_module("mujoco.rollout")
        path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / model_file
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self._frame_skip = frame_skip
        self._control = int(mujoco.mjtState.mjSTATE_CTRL.value)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._rollout = rollout.Rollout(nthread=threads if threads > 1 else 0)
        self._models: list[Any] = []
        self._actions = np.empty((0, frame_skip, self.model.nu))
        self._states = np.empty((0, frame_skip, 0))

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        if len(state) != len(self._models):
            self._models = [self.model] * len(state)
            self._actions = np.empty((len(state), self._frame_skip, self.model.nu))
            self._states = np.empty((len(state), self._frame_skip, state.shape[1]))
        self._actions[:] = action[:, None]
        self._rollout.rollout(
            self._models,
            self._data,
            np.ascontiguousarray(state),
            self._actions,
            control_spec=self._control,
            skip_checks=True,
            nstep=self._frame_skip,
            state=self._states,
        )
        return self._states[:, -1].copy()

    def close(self) -> None:
        self._rollout.close()


BODIES: dict[str, type[Body]] = {"point": Point, "half_cheetah": HalfCheetah}
