"""How large pictures are and which camera takes them: the arguments that Gymnasium's MuJoCo environments have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.envs.drawings import Viewpoint

SIZE = 480  # pixels, Gymnasium's width and height
LARGEST = 8192  # pixels; a picture of this width and height takes gigabytes
FREE_CAMERA = -1  # MuJoCo's number for the camera that belongs to no model


@dataclass(frozen=True)
class Framing:
    """What a picture shows of a scene.

    Attributes:
        width, height: pixels.
        camera_id: number of one of the model's cameras, -1 for MuJoCo's free one; None where no number was asked for.
        camera_name: name of one of the model's cameras; None where no name was asked for. With neither, the body's own view.
    """

    width: int = SIZE
    height: int = SIZE
    camera_id: int | None = None
    camera_name: str | None = None

    def check(self, where: str) -> None:
        """Raises `CardError` for sizes and cameras that no model can have; what one model has, `camera` finds out."""
        for name in ("width", "height"):
            value = getattr(self, name)
            if not _is_integer(value) or not 1 <= value <= LARGEST:
                raise CardError(f"{where}: {name} must be an integer of 1..{LARGEST} pixels, got {value!r}")
        if self.camera_id is not None and self.camera_name is not None:
            raise CardError(f"{where}: camera_id {self.camera_id!r} and camera_name {self.camera_name!r}: give one of them, not both")
        if self.camera_id is not None and (not _is_integer(self.camera_id) or self.camera_id < FREE_CAMERA):
            raise CardError(f"{where}: camera_id must be an integer of at least {FREE_CAMERA}, got {self.camera_id!r}")
        if self.camera_name is not None and not isinstance(self.camera_name, str):
            raise CardError(f"{where}: camera_name must be a text, got {self.camera_name!r}")

    def camera(self, mujoco: Any, model: Any, view: str | Viewpoint, where: str) -> Any:
        """MuJoCo's camera that looks at a model: the one asked for, else from the body's own `view`.

        Raises:
            CardError: the model has no such camera.
        """
        camera = mujoco.MjvCamera()
        if self.camera_id is None and self.camera_name is None:
            _look_from(mujoco, model, camera, view)
            return camera
        names = [model.camera(number).name for number in range(model.ncam)]
        named = f"cameras of this model: {', '.join(f'{number} {name!r}' for number, name in enumerate(names)) or 'none'}"
        number = self.camera_id
        if number is None:
            if self.camera_name not in names:
                raise CardError(f"{where}: unknown camera_name {self.camera_name!r}{nearest(str(self.camera_name), names)}; {named}")
            number = names.index(self.camera_name)
        if number >= len(names):
            raise CardError(f"{where}: camera_id {number} is out of range; accepted: {FREE_CAMERA} (free); {named}")
        if number == FREE_CAMERA:
            mujoco.mjv_defaultFreeCamera(model, camera)
        else:
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, int(number)
        return camera


def _look_from(mujoco: Any, model: Any, camera: Any, view: str | Viewpoint) -> None:
    """Put a camera where a body wants it: at a point, or at a camera of its model where that has it."""
    if isinstance(view, Viewpoint):
        camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = view
        return
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, view)
    if number >= 0:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, number


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
