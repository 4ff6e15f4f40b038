"""Pictures of bodies at their tasks: off screen through EGL or OSMesa, or in a window."""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from importlib import import_module
from typing import Any

import numpy as np

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.drawings import Drawing, Viewpoint
from dmrlad_bench.envs.family import TaskFamily

WIDTH, HEIGHT = 480, 360
MODES = ("human", "rgb_array")
OFF_SCREEN = {  # MUJOCO_GL -> module of MuJoCo, the library that it needs
    "egl": ("mujoco.egl", "libEGL (Debian: libegl1 and libgl1-mesa-dri)"),
    "osmesa": ("mujoco.osmesa", "libOSMesa (Debian: libosmesa6)"),
    "glfw": ("mujoco.glfw", "GLFW and a display"),
}
GOAL_COLOUR = (0.1, 0.8, 0.2, 0.45)
SLOW, FAST = np.array([0.2, 0.4, 1.0, 0.9]), np.array([1.0, 0.2, 0.1, 0.9])  # colours of arrows, by |value| in the card's range
MOST_GEOMS = 2000
GOAL_OF_A_SCENE = 0.03  # m, radius of the ball at a goal whose own radius differs by scene
Marker = tuple[str, np.ndarray, np.ndarray, Any]  # kind, centre (or start) and size (or end) in m, colour


def available_modes() -> list[str]:
    """Render modes that can work here: a window needs a display."""
    shown = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return list(MODES) if shown else ["rgb_array"]


class Renderer:
    """Draws one family's states; holds a GL context from its first picture until it is closed."""

    def __init__(self, family: TaskFamily, body: Body, mode: str) -> None:
        """Raises `CardError` for an unknown mode, or a body that cannot be drawn."""
        if mode not in MODES:
            raise CardError(f"{family.id}: unknown render_mode {mode!r}; accepted: None, {', '.join(MODES)}")
        if type(body).drawing is Body.drawing:
            raise CardError(f"{family.id}: render_mode {mode!r}: body {family.card.body!r} cannot be drawn; accepted: None")
        self._family, self._body, self._mode = family, body, mode
        self._context: Any = None
        self._model: Any = None  # the one that the context holds textures and meshes of

    def draw(self, drawing: Drawing, task: np.ndarray) -> np.ndarray | None:
        """The picture of a body in a task `(task_dim,)`: `(height, width, 3)` uint8, or None where a window shows it.

        Raises:
            CardError: no renderer works here; the message names the libraries and `MUJOCO_GL`.
        """
        mujoco = import_module("mujoco")
        model = drawing.model
        if self._context is None:
            self._open()
        context: Any = self._context
        context.make_current()
        if self._model is not model:
            self._load(mujoco, model)
        self._data.qpos[:] = drawing.position
        mujoco.mj_forward(model, self._data)
        visible = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(model, self._data, self._shown, None, self._camera, visible, self._scene)
        centre = np.array(self._data.subtree_com[1])
        for marker in markers(self._family, task, centre, drawing.goal):
            _add(mujoco, self._scene, marker)
        area = mujoco.MjrRect(0, 0, WIDTH, HEIGHT)
        mujoco.mjr_render(area, self._scene, self._drawn)
        if self._mode == "human":
            context.show()
            return None
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, area, self._drawn)
        return picture[::-1].copy()

    def _open(self) -> None:
        self._context = _Window(self._family.id) if self._mode == "human" else _off_screen_context(self._family.id)
        self._free = weakref.finalize(self, self._context.free)  # also where nobody closes, before the interpreter is taken down

    def _load(self, mujoco: Any, model: Any) -> None:
        if self._model is not None:
            self._drawn.free()
        self._model = model
        model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
        self._drawn = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        buffers = mujoco.mjtFramebuffer
        mujoco.mjr_setBuffer((buffers.mjFB_WINDOW if self._mode == "human" else buffers.mjFB_OFFSCREEN).value, self._drawn)
        self._data, self._scene, self._camera = mujoco.MjData(model), mujoco.MjvScene(model, MOST_GEOMS), mujoco.MjvCamera()
        self._shown = mujoco.MjvOption()
        self._shown.sitegroup[:] = 0  # points of a model that stand for a goal stand elsewhere than the task's; the marker shows that
        self._place_camera(mujoco, model)

    def _place_camera(self, mujoco: Any, model: Any) -> None:
        camera, view = self._camera, self._body.camera
        if isinstance(view, Viewpoint):
            camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = view
            return
        number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, view)
        if number >= 0:
            camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, number

    def close(self) -> None:
        """Free the context; a later picture opens another."""
        if self._context is not None:
            self._context.make_current()
            if self._model is not None:
                self._drawn.free()
            self._free()
            self._context = self._model = None

    def __getstate__(self) -> dict[str, Any]:
        # a context cannot be copied; the copy opens its own
        return {"_family": self._family, "_body": self._body, "_mode": self._mode, "_context": None, "_model": None}


def markers(family: TaskFamily, task: np.ndarray, centre: np.ndarray, given: np.ndarray | None = None) -> list[Marker]:
    """What shows the task: a ball at a goal in the plane or in space, a bar at an x position, an arrow for velocities and directions.

    An arrow stands above the body's `centre` (m), points where the task asks it to go, and is the longer and redder the faster. Where
    the goal was `given` by the simulator, (3,) m, the ball stands there.
    """
    if given is not None:
        return [("ball", given, np.full(3, GOAL_OF_A_SCENE), GOAL_COLOUR)]
    card, goal = family.card, family.card.goal
    kind, value = goal.kind, task
    if kind == "multi_task":
        variant = goal.variants[int(task[0])]
        kind, value = variant.quantity, task[1:]
    if kind == "planar_goal":
        return [("ball", np.array([*value, 0.1]), np.full(3, card.reward.radius), GOAL_COLOUR)]
    if kind in ("hand_goal", "object_goal"):
        return [("ball", np.asarray(value), np.full(3, card.reward.radius), GOAL_COLOUR)]
    if kind == "position":
        return [("bar", np.array([value[0], 0.0, 0.5]), np.array([0.05, 0.05, 0.5]), GOAL_COLOUR)]
    if kind not in ("velocity", "direction", "jump", "flip"):
        return []
    share = min(abs(float(value[0])) / max(abs(goal.low), abs(goal.high)), 1.0)
    colour = (1 - share) * SLOW + share * FAST
    start = centre + np.array([0.0, 0.0, 0.7])
    way = np.array([0.0, 0.0, 1.0]) if kind == "jump" else np.array([1.0, 0.0, 0.0])
    return [("arrow", start, start + (0.2 + share) * np.sign(value[0]) * way, colour)]


def _add(mujoco: Any, scene: Any, marker: Marker) -> None:
    if scene.ngeom >= scene.maxgeom:
        return
    kind, first, second, colour = marker
    geom, shapes = scene.geoms[scene.ngeom], mujoco.mjtGeom
    shape = {"ball": shapes.mjGEOM_SPHERE, "bar": shapes.mjGEOM_BOX, "arrow": shapes.mjGEOM_ARROW}[kind].value
    size = np.full(3, 0.05) if kind == "arrow" else second
    mujoco.mjv_initGeom(geom, shape, np.asarray(size, np.float64), first, np.eye(3).ravel(), np.asarray(colour, np.float32))
    if kind == "arrow":
        mujoco.mjv_connector(geom, shape, 0.04, first, second)
    scene.ngeom += 1


def _off_screen_context(where: str) -> Any:
    """A GL context without a window: what `MUJOCO_GL` names, else the first of EGL and OSMesa that works."""
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    tried = [asked] if asked in OFF_SCREEN else ["egl", "osmesa"]
    faults = []
    for name in tried:
        module, library = OFF_SCREEN[name]
        try:
            context = import_module(module).GLContext(WIDTH, HEIGHT)
            context.make_current()
            return context
        except Exception as error:  # PyOpenGL and GLFW raise whatever the missing library leads to
            faults.append(f"{name} needs {library}: {type(error).__name__}: {' '.join(str(error).split())[:100]}")
    accepted = "install one of these libraries, or set MUJOCO_GL to egl, osmesa or glfw"
    raise CardError(f"{where}: no renderer works with MUJOCO_GL={asked!r}: {'; '.join(faults)}; {accepted}")


class _Window:
    """A GLFW window."""

    def __init__(self, where: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # GLFW's binding warns of what went wrong
                self._glfw = import_module("glfw")
                if not self._glfw.init():
                    raise RuntimeError("GLFW cannot be started")
                self._window = self._glfw.create_window(WIDTH, HEIGHT, "dmrlad-bench", None, None)
                if not self._window:
                    raise RuntimeError("GLFW opens no window")
        except Exception as error:
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            needed = f"it needs {OFF_SCREEN['glfw'][1]} (DISPLAY or WAYLAND_DISPLAY)"
            instead = "without them use 'rgb_array', drawn off screen by what MUJOCO_GL names, egl or osmesa"
            raise CardError(f"{where}: render_mode 'human': no window can be opened: {fault}; {needed}; {instead}") from error

    def make_current(self) -> None:
        self._glfw.make_context_current(self._window)

    def show(self) -> None:
        self._glfw.swap_buffers(self._window)
        self._glfw.poll_events()

    def free(self) -> None:
        self._glfw.destroy_window(self._window)
