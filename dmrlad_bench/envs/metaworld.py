"""Meta-World's benchmarks (version 3.1): their scenes as one body, and what tasks are.

A task is (number of the class in `CLASSES`, the six numbers that Meta-World calls `rand_vec`: where objects start and where the goal
is; classes with fewer leave the rest 0). Meta-World ignores seeds at `reset` and draws `rand_vec` from NumPy's global generator, once
for each task, when a benchmark is made. The cards hold these draws; with `rand_vec` given, nothing random is left in an episode.
"""

from __future__ import annotations

import numpy as np

from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.drawings import Drawing
from dmrlad_bench.envs.sawyer import ACROSS_THE_TABLE

OBSERVATION = 39
RAND_VEC = 6  # entries of the longest rand_vec
NAMES = """
assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press button-press-wall
coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open door-unlock hand-insert drawer-close
drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side handle-pull lever-pull pick-place-wall
pick-out-of-hole pick-place plate-slide plate-slide-side plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side
soccer stick-push stick-pull push push-wall push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
"""
CLASSES = tuple(NAMES.split())  # by number; tasks on cards refer to them


class MetaWorld(Body):
    """The Sawyer arm in any of Meta-World's 50 scenes; 0.0125 s a step.

    Action: hand movement along x, y, z (0.01 m at 1) and gripper force (1 closes). Observation: Meta-World's 39 entries, goal hidden:
    hand position (3), gripper opening from 0 to 1, positions and orientations (x y z w) of up to two objects (14, zeros where there are
    fewer); the same 18 of the step before; 3 zeros in place of the goal. Where objects start is part of the task, so the first
    observation shows that much of it, as in Meta-World's own benchmarks.

    State: observation, reward and success as Meta-World gave them.
    """

    action_dim = 4
    measures = ("verdict",)
    camera = ACROSS_THE_TABLE
    step_duration = 0.0125
    widest = 25  # an environment holds a compiled scene of its own

    @classmethod
    def observation_dim(cls, observation_extras: tuple[str, ...] = ()) -> int:
        return OBSERVATION

    def initial_state(self, generator: np.random.Generator) -> np.ndarray:
        raise TypeError("a task decides where Meta-World's episodes start; MetaWorldEpisodes starts them")

    def step(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        raise TypeError("Meta-World's environments hold state of their own; MetaWorldEpisodes steps them")

    def observe(self, state: np.ndarray) -> np.ndarray:
        return state[:, :OBSERVATION].copy()

    def drawing(self, state: np.ndarray) -> Drawing:
        raise TypeError("Meta-World's environments hold state of their own; MetaWorldEpisodes draws them")

    def measure(self, name: str, state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
        return next_state[:, OBSERVATION:]


def scene_labels(scenes: np.ndarray, train_scenes: np.ndarray) -> np.ndarray | None:
    """Base class of tasks by the number of their scene, `(tasks,)` int64: training scenes count from 0, others follow.

    None where all training tasks have the same scene.
    """
    known = np.unique(train_scenes)
    order = np.concatenate((known, np.setdiff1d(scenes, known)))
    return None if len(known) == 1 else np.argmax(order == scenes[:, None], axis=1)
