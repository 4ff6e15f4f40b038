"""What whoever draws an environment is handed: a MuJoCo model at a position, and where to look from."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Drawing(NamedTuple):
    """A model at a position.

    Attributes:
        model: the compiled MuJoCo model; another scene is another model.
        position: qpos, `(positions,)`.
        goal: where the goal is, `(3,)` m, where only the simulator knows; None where the task says it.
    """

    model: Any
    position: np.ndarray
    goal: np.ndarray | None = None


class Viewpoint(NamedTuple):
    """Where a camera of no model stands: it looks at `target` (m) from `distance` (m), at angles in degrees."""

    target: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float
