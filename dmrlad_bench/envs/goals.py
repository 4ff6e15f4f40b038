"""Goal kinds as pure array functions: how far is what was done from what was asked?

Every function takes an outcome `(..., outcome_dim)` and a task `(..., task_dim)` whose leading shapes broadcast, as NumPy
arrays or torch tensors, and returns `(...)`. An outcome is what the body measured, the contact where the reward has a contact
cost, and last the effort, sum(action^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dmrlad_bench.cards import family as cards
from dmrlad_bench.envs.metaworld import CLASSES, RAND_VEC
from dmrlad_bench.envs.multi_task import multi_task_error, multi_task_in_range, multi_task_radius

CIRCLE_TOLERANCE = 1e-3  # m and rad; the frozen lists are rounded to four decimals


def linear_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """`|done - asked|` in m/s or m; outcome (forward velocity or x position, ...), task (the same)."""
    xp = array_namespace(outcome, task)
    return xp.abs(outcome[..., 0] - task[..., 0])


def direction_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """Minus the velocity in the direction asked for, m/s, so it is negative for whoever moves the right way; task (-1 or 1)."""
    return -task[..., 0] * outcome[..., 0]


def progress_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """Minus the forward velocity, m/s, the same in every task; task (multipliers of the physics, of which none is asked anything)."""
    xp = array_namespace(outcome, task)
    return xp.broadcast_arrays(-outcome[..., 0], task[..., 0])[0]


def planar_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """Distance to the goal in m, by `goal.norm` Euclidean or the sum over both axes; outcome (x, y, ...), task (x, y)."""
    xp = array_namespace(outcome, task)
    if goal.norm == "l1":
        return xp.abs(outcome[..., 0] - task[..., 0]) + xp.abs(outcome[..., 1] - task[..., 1])
    # hypot, not sqrt of a sum of squares: torch's sqrt on CPUs is not correctly rounded and would differ from NumPy's.
    return xp.hypot(outcome[..., 0] - task[..., 0], outcome[..., 1] - task[..., 1])


def spatial_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """Euclidean distance to the goal in m; outcome (x, y, z, effort), task (x, y, z)."""
    xp = array_namespace(outcome, task)
    return xp.hypot(xp.hypot(outcome[..., 0] - task[..., 0], outcome[..., 1] - task[..., 1]), outcome[..., 2] - task[..., 2])


def effort(outcome: Any) -> Any:
    """Sum of squared actions, the last entry of every outcome."""
    return outcome[..., -1]


def contact(outcome: Any) -> Any:
    """Sum of squared contact forces, the last entry but one of outcomes that have it."""
    return outcome[..., -2]


def linear_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 1)` velocities or positions lie between `goal.low` and `goal.high`, `(tasks,)` bool."""
    return (tasks[:, 0] >= goal.low) & (tasks[:, 0] <= goal.high)


def direction_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 1)` numbers are directions, `(tasks,)` bool."""
    return np.abs(tasks[:, 0]) == 1


def planar_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 2)` goals lie on the circle of `goal.radius` m (or in the disc), at an angle between `low` and `high` rad,
    `(tasks,)` bool."""
    radius = math.inf if goal.radius is None else goal.radius
    beyond = np.hypot(tasks[:, 0], tasks[:, 1]) - radius
    on_circle = (beyond if goal.region == "disc" else np.abs(beyond)) <= CIRCLE_TOLERANCE
    beyond_low = np.mod(np.arctan2(tasks[:, 1], tasks[:, 0]) - goal.low + CIRCLE_TOLERANCE, 2 * math.pi)
    return on_circle & (beyond_low <= goal.high - goal.low + 2 * CIRCLE_TOLERANCE)


def spatial_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 3)` goals lie in the card's box, `(tasks,)` bool."""
    low, high = np.array(goal.box).T
    return ((tasks >= low) & (tasks <= high)).all(axis=1)


def verdict_error(outcome: Any, task: Any, goal: cards.Goal) -> Any:
    """0 where Meta-World says success, else 1; outcome (Meta-World's reward, its success, ...), task (class, rand_vec)."""
    return 1.0 - outcome[..., 1] + 0.0 * task[..., 0]


def meta_world_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 7)` tasks name a class between `goal.low` and `goal.high`, `(tasks,)` bool."""
    number = tasks[:, 0]
    return (number == np.round(number)) & (number >= max(goal.low, 0)) & (number <= min(goal.high, len(CLASSES) - 1))


@dataclass(frozen=True)
class GoalKind:
    """One kind of goal.

    Attributes:
        task_dim: entries of a task; 0 where that depends on the body.
        measure: what the body must be able to measure.
        outcome_dim: entries of an outcome, the effort included.
        error: `err(outcome, task, goal)`.
        in_range: which tasks lie in a card's range; None where that depends on the body.
        on_circle: whether the card's range is an arc, so that it needs a radius.
        in_space: whether the card's range is a box.
        relabelable: whether the task is all that the reward of an outcome depends on.
        given_reward: whether the dense reward is the outcome's first entry, as the simulator gave it, in place of `-err`.
        radius: `(task, goal, reward radius)` -> the radius that holds in each task, where tasks differ in it.
    """

    task_dim: int
    measure: str
    outcome_dim: int
    error: Callable[[Any, Any, cards.Goal], Any]
    in_range: Callable[[np.ndarray, cards.Goal], np.ndarray] | None
    on_circle: bool = False
    in_space: bool = False
    relabelable: bool = True
    given_reward: bool = False
    radius: Callable[[Any, cards.Goal, float], Any] | None = None


GOAL_KINDS = {
    "velocity": GoalKind(1, "forward_velocity", 2, linear_error, linear_in_range),
    "position": GoalKind(1, "x_position", 2, linear_error, linear_in_range),
    "direction": GoalKind(1, "forward_velocity", 2, direction_error, direction_in_range),
    "planar_goal": GoalKind(2, "planar_position", 3, planar_error, planar_in_range, on_circle=True),
    "multi_task": GoalKind(2, "root_motion", 5, multi_task_error, multi_task_in_range, radius=multi_task_radius),
    "physics": GoalKind(0, "forward_velocity", 2, progress_error, None),
    "meta_world": GoalKind(1 + RAND_VEC, "verdict", 3, verdict_error, meta_world_in_range, relabelable=False, given_reward=True),
    "hand_goal": GoalKind(3, "hand_position", 4, spatial_error, spatial_in_range, in_space=True),
    "object_goal": GoalKind(3, "object_position", 4, spatial_error, spatial_in_range, in_space=True),
}
