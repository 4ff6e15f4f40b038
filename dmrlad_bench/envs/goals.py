"""Goal kinds as pure array functions: how far is what was done from what was asked?

Every function takes an outcome `(..., outcome_dim)` and a task `(..., task_dim)` whose leading shapes broadcast, as NumPy
arrays or torch tensors, and returns `(...)`. An outcome is what the body measured followed by the effort, sum(action^2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from dmrlad_bench.cards import family as cards

CIRCLE_TOLERANCE = 1e-3  # m and rad; the frozen lists are rounded to four decimals


def velocity_error(outcome: Any, task: Any) -> Any:
    """`|v - v_goal|` in m/s; outcome (forward velocity, effort), task (forward velocity)."""
    xp = array_namespace(outcome, task)
    return xp.abs(outcome[..., 0] - task[..., 0])


def planar_error(outcome: Any, task: Any) -> Any:
    """Euclidean distance to the goal in m; outcome (x, y, effort), task (x, y)."""
    xp = array_namespace(outcome, task)
    # hypot, not sqrt of a sum of squares: torch's sqrt on CPUs is not correctly rounded and would differ from NumPy's.
    return xp.hypot(outcome[..., 0] - task[..., 0], outcome[..., 1] - task[..., 1])


def effort(outcome: Any) -> Any:
    """Sum of squared actions, the last entry of every outcome."""
    return outcome[..., -1]


def velocity_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 1)` velocities lie between `goal.low` and `goal.high`, `(tasks,)` bool."""
    return (tasks[:, 0] >= goal.low) & (tasks[:, 0] <= goal.high)


def planar_in_range(tasks: np.ndarray, goal: cards.Goal) -> np.ndarray:
    """Which of `(tasks, 2)` goals lie on the circle of `goal.radius` m at an angle between `low` and `high` rad, `(tasks,)` bool."""
    radius = math.inf if goal.radius is None else goal.radius
    on_circle = np.abs(np.hypot(tasks[:, 0], tasks[:, 1]) - radius) <= CIRCLE_TOLERANCE
    beyond_low = np.mod(np.arctan2(tasks[:, 1], tasks[:, 0]) - goal.low + CIRCLE_TOLERANCE, 2 * math.pi)
    return on_circle & (beyond_low <= goal.high - goal.low + 2 * CIRCLE_TOLERANCE)


@dataclass(frozen=True)
class GoalKind:
    """One kind of goal.

    Attributes:
        task_dim: entries of a task.
        measure: what the body must be able to measure.
        outcome_dim: entries of an outcome, the effort included.
        error: `err(outcome, task)`.
        in_range: which tasks lie in a card's range.
        on_circle: whether the card's range is an arc, so that it needs a radius.
    """

    task_dim: int
    measure: str
    outcome_dim: int
    error: Callable[[Any, Any], Any]
    in_range: Callable[[np.ndarray, cards.Goal], np.ndarray]
    on_circle: bool = False


GOAL_KINDS = {
    "velocity": GoalKind(1, "forward_velocity", 2, velocity_error, velocity_in_range),
    "planar_goal": GoalKind(2, "planar_position", 3, planar_error, planar_in_range, on_circle=True),
}
