"""Bodies: physics without tasks. A body is stateless; whoever steps it holds the states, one row an environment.

The single environment steps a batch of one and the vector environment a batch of many through the same functions, so the
two agree to the last bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np

from dmrlad_bench.envs.drawings import Drawing, Viewpoint
from dmrlad_bench.envs.physics import ScaledModels
from dmrlad_bench.envs.pools import Stepper

STEP_OF_THE_POINT = 0.1  # m per step and axis at full action
RESET_NOISE = 0.1  # HalfCheetah-v5's reset_noise_scale

PICTURE_OF_THE_POINT = """<mujoco><worldbody><light pos="0 0 4" dir="0 0 -1" directional="true"/>
<camera name="above" pos="0 0 4"/><geom type="plane" size="3 3 0.1" rgba="0.85 0.87 0.9 1"/>
<body pos="0 0 0.05"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
<geom type="sphere" size="0.05" rgba="0.1 0.2 0.8 1"/>
</body></worldbody></mujoco>"""


class Body(ABC):
    """Physics of one body.

    Attributes:
        action_dim: entries of an action; actions lie in [-1, 1].
        measures: what goal kinds may ask of the body.
        extras: observation extras that a card may ask for.
        camera: what pictures are taken with: the name of a camera of the model, or a point to look from.
        place_dim: entries of `place`; 0 where the body has none, so that tasks cannot change by place.
        widest: how many should at most run side by side; None where any number may.
    """

    action_dim: ClassVar[int]
    measures: ClassVar[tuple[str, ...]]
    extras: ClassVar[tuple[str, ...]] = ()
    place_dim: ClassVar[int] = 0
    camera: ClassVar[str | Viewpoint] = "track"
    widest: ClassVar[int | None] = None

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

    def place(self, state: np.ndarray) -> np.ndarray:
        """Where the body is, `(n, place_dim)` m."""
        return np.zeros((len(state), 0))

    def terminated(self, state: np.ndarray) -> np.ndarray:
        """Which states end the episode, `(n,)` bool."""
        return np.zeros(len(state), dtype=bool)

    def drawing(self, state: np.ndarray) -> Drawing:
        """The MuJoCo model and qpos that show a state `(state_dim,)`; bodies without it cannot be rendered."""
        raise NotImplementedError(f"body {type(self).__name__} has no drawing, so it cannot be rendered; render_mode must be None")

    def close(self) -> None:  # noqa: B027 (most bodies hold nothing)
        """Give threads and memory back; a later step takes them again."""


class Point(Body):
    """A point in the plane that starts at the origin. State and observation: position (x, y) in m."""

    action_dim = 2
    measures = ("planar_position",)
    camera = "above"
    _picture: Any = None  # the model that shows it, compiled for the first picture

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

    def drawing(self, state: np.ndarray) -> Drawing:
        if self._picture is None:
            self._picture = import_module("mujoco").MjModel.from_xml_string(PICTURE_OF_THE_POINT)
        return Drawing(self._picture, state)


class MujocoBody(Body):
    """A MuJoCo model stepped by `mujoco.rollout`, in threads that all bodies of the process share.

    State: MuJoCo's full physics state (time, qpos, qvel). `mujoco.rollout` starts every call without warm start, so a state
    is all there is to know: the next one does not depend on what was simulated before.

    Attributes:
        model_file: file among the models packaged with Gymnasium.
        frame_skip: simulator steps per environment step.
        step_duration: s per environment step.
        positions, velocities: sizes of qpos and qvel.
        physics_sizes: multipliers that each parameter takes where a task scales it, as `ScaledModels` tells; empty where none may.
    """

    model_file: ClassVar[str]
    frame_skip: ClassVar[int]
    step_duration: ClassVar[float]
    positions: ClassVar[int]
    velocities: ClassVar[int]
    physics_sizes: ClassVar[dict[str, int]] = {}
    place_dim = 1

    def __init__(self, observation_extras: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__(observation_extras, threads)
        self._simulator: _Simulator | None = None
        self._scaled: ScaledModels | None = None

    @property
    def simulator(self) -> _Simulator:
        """The model, its threads and their buffers; opened on first use."""
        if self._simulator is None:
            self._simulator = _Simulator(self.model_file, self.frame_skip, self.threads)
        return self._simulator

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return self.simulator.step(state, action)

    def step_scaled(self, state: np.ndarray, action: np.ndarray, scaled: Sequence[str], tasks: np.ndarray) -> np.ndarray:
        """As `step`, each row with the physics of its task `(n, task_dim)`: multipliers of the parameters `scaled`."""
        if self._scaled is None:
            self._scaled = ScaledModels(self.simulator.model, scaled)
        return self.simulator.step(state, action, self._scaled.of(tasks))

    def place(self, state: np.ndarray) -> np.ndarray:
        return self.positions_of(state)[..., : self.place_dim]

    def drawing(self, state: np.ndarray) -> Drawing:
        return Drawing(self.simulator.model, self.positions_of(state))

    def positions_of(self, state: np.ndarray) -> np.ndarray:
        """qpos of states, `(n, positions)`."""
        return state[..., 1 : 1 + self.positions]

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = self._scaled = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_simulator": None, "_scaled": None}  # threads cannot be pickled or copied; the copy opens its own


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
    physics_sizes = {"mass": 7, "inertia": 7, "friction": 9, "damping": 6}
    measures = ("forward_velocity", "x_position", "root_motion")
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
        if name == "x_position":
            return self.positions_of(next_state)[..., :1]
        if name == "root_motion":  # x position, mean velocities along x and z and of the pitch
            travelled = self.positions_of(next_state)[..., :3] - self.positions_of(state)[..., :3]
            return np.concatenate((self.positions_of(next_state)[..., :1], travelled / self.step_duration), axis=-1)
        return (self.positions_of(next_state)[..., :1] - self.positions_of(state)[..., :1]) / self.step_duration


class _Simulator:
    """One MuJoCo model, a hold on the threads that step it, and the buffers for one batch size."""

    def __init__(self, model_file: str, frame_skip: int, threads: int) -> None:
        mujoco = import_module("mujoco")  # here, so that `import dmrlad_bench` stays light
        path = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / model_file
        self.model = mujoco.MjModel.from_xml_path(str(path))
        self._frame_skip = frame_skip
        self._control = int(mujoco.mjtState.mjSTATE_CTRL.value)
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._stepper = Stepper(threads)
        self._models: list[Any] = []
        self._actions = np.empty((0, frame_skip, self.model.nu))
        self._states = np.empty((0, frame_skip, 0))

    def step(self, state: np.ndarray, action: np.ndarray, models: list[Any] | None = None) -> np.ndarray:
        if len(state) != len(self._models):
            self._models = [self.model] * len(state)
            self._actions = np.empty((len(state), self._frame_skip, self.model.nu))
            self._states = np.empty((len(state), self._frame_skip, state.shape[1]))
        self._actions[:] = action[:, None]
        self._stepper.rollout(
            self._models if models is None else models,
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
        self._stepper.close()
