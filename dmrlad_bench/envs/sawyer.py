"""Meta-World's Sawyer arm as bodies stepped in native threads: reach-v3, push-v3 and pick-place-v3 of Meta-World 3.1.

Meta-World moves a mocap body that a weld drags the hand after, steps five times 2.5 ms, and reads positions. The same is asked
of `mujoco.rollout` here, whose controls may be mocap positions; sensors added to the model report the positions. Trajectories are
those of Meta-World's own environments to the last bit where its warm start is removed before every step. Where it is not, hand
and carried objects agree within 1e-6 m over scripted episodes (tests/test_envs_sawyer.py); only a puck that settles untouched on the
table differs by up to 1e-4 m, for contacts magnify the last digit. Meta-World itself is not imported, only its model files are read.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.drawings import Drawing, Viewpoint
from dmrlad_bench.envs.pools import Stepper

FRAME_SKIP = 5  # simulator steps of 2.5 ms
HAND_START = np.array([0.0, 0.6, 0.2])  # m
HAND_QUATERNION = np.array([1.0, 0.0, 1.0, 0.0])
STEPS_TO_THE_START = 50  # environment steps that bring the hand to its start, gripper open
STEP_OF_THE_HAND = 0.01  # m per step and axis at full action
MOCAP_LOW, MOCAP_HIGH = np.array([-0.5, 0.4, 0.05]), np.array([0.5, 1.0, 0.5])  # m, where the mocap body may be
HAND_LOW, HAND_HIGH = np.array([-0.525, 0.348, -0.0525]), np.array([0.525, 1.025, 0.7])  # m, what observations are clipped to
OPEN_GRIPPER = 0.1  # m between the fingers
WELD = np.array([0.0] * 6 + [-1.0] + [0.0] * 3 + [5.0])  # eq_data of the weld between hand and mocap body
OBJECT_LOW, OBJECT_HIGH = np.array([-0.1, 0.6]), np.array([0.1, 0.65])  # m, where the object starts
OBJECT_HEIGHT = 0.02  # m
POSITIONS, VELOCITIES = 16, 15
OBJECT_POSITION, OBJECT_VELOCITY = slice(9, 12), slice(9, 15)  # in qpos and qvel
FRAME = 18  # entries of one frame of an observation
ACROSS_THE_TABLE = Viewpoint((0.0, 0.65, 0.15), 1.4, 220.0, -28.0)  # the cameras of Meta-World's models are upside down
PHYSICS = 1 + POSITIONS + VELOCITIES
MOCAP = slice(PHYSICS, PHYSICS + 3)
FINGERTIPS = slice(PHYSICS + 3, PHYSICS + 6)
FRAMES = slice(PHYSICS + 6, PHYSICS + 6 + 2 * FRAME)

# type of the sensor, type and name of what it reports on; all give three numbers
SENSORS = (
    ("FRAMEPOS", "XBODY", "hand"),
    ("FRAMEPOS", "XBODY", "rightclaw"),
    ("FRAMEPOS", "XBODY", "leftclaw"),
    ("FRAMEPOS", "XBODY", "obj"),
    ("FRAMEXAXIS", "GEOM", "objGeom"),
    ("FRAMEYAXIS", "GEOM", "objGeom"),
    ("FRAMEZAXIS", "GEOM", "objGeom"),
    ("FRAMEPOS", "SITE", "rightEndEffector"),
    ("FRAMEPOS", "SITE", "leftEndEffector"),
)


class Sawyer(Body):
    """A Sawyer arm over a table with one object, as Meta-World has it; 0.0125 s a step.

    Action: hand movement along x, y, z (0.01 m at 1) and gripper force (1 closes). Observation: Meta-World's 39 entries, goal hidden:
    hand position (3), gripper opening from 0 to 1, object position (3) and orientation (4, x y z w), 7 zeros; the same 18 of the step
    before; 3 zeros in place of the goal. The hand starts at (0, 0.6, 0.2) m, the object uniformly on [-0.1, 0.1] x [0.6, 0.65] m.
    That is the part of Meta-World's range that keeps its least distance of 0.15 m from every goal, so where the object starts does not
    depend on the task and does not tell it.

    State: time, qpos, qvel, mocap position, point between the fingertips, and the last two frames of the observation.
    """

    task_name: ClassVar[str]
    object_settles: ClassVar[bool] = False
    action_dim = 4
    measures = ("hand_position", "object_position")
    camera = ACROSS_THE_TABLE
    step_duration = 0.0125

    def __init__(self, observation_extras: tuple[str, ...] = (), threads: int = 1) -> None:
        super().__init__(observation_extras, threads)
        self._simulator: _Simulator | None = None

    @property
    def simulator(self) -> _Simulator:
        """The model, its threads and the start of the hand; opened on first use."""
        if self._simulator is None:
            self._simulator = _Simulator(self.task_name, self.threads)
        return self._simulator

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return 2 * FRAME + 3

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        position = generator.uniform(OBJECT_LOW, OBJECT_HIGH)
        return self.simulator.start(position, None if self.object_settles else OBJECT_HEIGHT)

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        mocap = np.clip(state[:, MOCAP] + STEP_OF_THE_HAND * action[:, :3], MOCAP_LOW, MOCAP_HIGH)
        gripper = action[:, 3:]
        quaternion = np.broadcast_to(HAND_QUATERNION, (len(state), 4))
        control = np.concatenate((gripper, -gripper, mocap, quaternion), axis=1)
        physics, sensors = self.simulator.step(state[:, :PHYSICS], control)
        frame, fingertips = _frame_and_fingertips(sensors)
        return np.concatenate((physics, mocap, fingertips, frame, state[:, FRAMES][:, :FRAME]), axis=1)

    def observe(self, state: np.ndarray) -> np.ndarray:
        frames = state[:, FRAMES].reshape(len(state), 2, FRAME).copy()
        frames[..., :3] = np.clip(frames[..., :3], HAND_LOW, HAND_HIGH)
        return np.concatenate((frames.reshape(len(state), 2 * FRAME), np.zeros((len(state), 3))), axis=1)

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        if name == "hand_position":
            return next_state[:, FINGERTIPS]
        return next_state[:, FRAMES][:, 4:7]

    def drawing(self, state: np.ndarray) -> Drawing:
        return Drawing(self.simulator.model, state[1 : 1 + POSITIONS])

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_simulator": None}  # threads cannot be pickled or copied; the copy opens its own


class SawyerReach(Sawyer):
    task_name = "reach"


class SawyerPush(Sawyer):
    task_name = "push"
    object_settles = True  # starts at the height that it has fallen to while the hand moved to its start


class SawyerPickPlace(Sawyer):
    task_name = "pick_place"


def _frame_and_fingertips(sensors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One frame of the observation `(n, 18)` and the point between the fingertips `(n, 3)` from sensor readings `(n, 27)`."""
    from scipy.spatial.transform import Rotation  # as Meta-World does it, which settles the quaternions' signs

    hand, right, left, position, x_axis, y_axis, z_axis, right_tip, left_tip = np.split(sensors, len(SENSORS), axis=1)
    opening = np.clip(np.linalg.norm(right - left, axis=1, keepdims=True) / OPEN_GRIPPER, 0.0, 1.0)
    orientation = Rotation.from_matrix(np.stack((x_axis, y_axis, z_axis), axis=2)).as_quat()
    padding = np.zeros((len(sensors), FRAME - 11))
    return np.concatenate((hand, opening, position, orientation, padding), axis=1), (right_tip + left_tip) / 2


class _Simulator:
    """One Sawyer model with sensors, a hold on the threads that step it, and the state with the hand at its start."""

    def __init__(self, task_name: str, threads: int) -> None:
        mujoco = import_module("mujoco")  # here, so that `import dmrlad_bench` stays light
        self.model = _model(mujoco, task_name)
        state, self._physics = mujoco.mjtState, int(mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        parts = (state.mjSTATE_CTRL, state.mjSTATE_MOCAP_POS, state.mjSTATE_MOCAP_QUAT)
        self._control = sum(int(part.value) for part in parts)
        self._mujoco = mujoco
        self._data = [mujoco.MjData(self.model) for _ in range(threads)]
        self._stepper = Stepper(threads)
        self._at_start, self._settled_height = self._with_the_hand_at_its_start()

    def _with_the_hand_at_its_start(self) -> tuple[np.ndarray, float]:
        """Physics `(32,)`, and the height of the object, as Meta-World reads it: one simulator step earlier."""
        mujoco, data = self._mujoco, self._mujoco.MjData(self.model)
        data.mocap_pos[0], data.mocap_quat[0] = HAND_START, HAND_QUATERNION
        data.ctrl[:] = -1.0, 1.0
        mujoco.mj_step(self.model, data, nstep=STEPS_TO_THE_START * FRAME_SKIP)
        return np.concatenate(([data.time], data.qpos, data.qvel)), float(data.body("obj").xpos[2])

    def start(self, object_position: np.ndarray, height: float | None) -> np.ndarray:
        """The state with the hand at its start and the object at rest at (x, y), at a height or at the one that it has fallen to."""
        mujoco, data = self._mujoco, self._mujoco.MjData(self.model)
        mujoco.mj_setState(self.model, data, self._at_start, self._physics)
        data.qpos[OBJECT_POSITION] = (*object_position, self._settled_height if height is None else height)
        data.qvel[OBJECT_VELOCITY] = 0.0
        mujoco.mj_forward(self.model, data)
        frame, fingertips = _frame_and_fingertips(data.sensordata[None])
        return np.concatenate(([data.time], data.qpos, data.qvel, HAND_START, fingertips[0], frame[0], frame[0]))

    def step(self, physics: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Physics `(n, 32)` after one environment step, and the sensors `(n, 27)` there.

        Sensors are read before a simulator step moves the bodies, hence one simulator step more than the result needs.
        """
        count, steps = len(physics), FRAME_SKIP + 1
        states = np.empty((count, steps, PHYSICS))
        sensors = np.empty((count, steps, 3 * len(SENSORS)))
        self._stepper.rollout(
            [self.model] * count,
            self._data,
            np.ascontiguousarray(physics),
            np.repeat(control[:, None], steps, axis=1),
            control_spec=self._control,
            skip_checks=True,
            nstep=steps,
            state=states,
            sensordata=sensors,
        )
        return states[:, FRAME_SKIP - 1], sensors[:, FRAME_SKIP]

    def close(self) -> None:
        self._stepper.close()


def _model(mujoco: Any, task_name: str) -> Any:
    """Meta-World's model of a task, with the sensors and its setting of the weld."""
    found = find_spec("metaworld")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the Sawyer families need the package metaworld, whose model files they read", name="metaworld")
    path = Path(found.origin).parent / "assets" / "sawyer_xyz" / f"sawyer_{task_name}_v3.xml"
    specification = mujoco.MjSpec.from_file(str(path))
    for sensor, kind, name in SENSORS:
        reported, of = getattr(mujoco.mjtSensor, f"mjSENS_{sensor}"), getattr(mujoco.mjtObj, f"mjOBJ_{kind}")
        specification.add_sensor(type=reported, objtype=of, objname=name)
    model = specification.compile()
    model.eq_data[model.eq_type == int(mujoco.mjtEq.mjEQ_WELD.value)] = WELD
    return model


SAWYER_BODIES: dict[str, type[Body]] = {"sawyer_reach": SawyerReach, "sawyer_push": SawyerPush, "sawyer_pick_place": SawyerPickPlace}
