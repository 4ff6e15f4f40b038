"""Pictures of bodies at their tasks: off screen through EGL or OSMesa, or in a window."""

from __future__ import annotations

import atexit
import os
import sys
import warnings
import weakref
from collections import OrderedDict
from importlib import import_module
from typing import Any

import numpy as np

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.drawings import Drawing
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.framing import SIZE, Framing

MODES = ("human", "rgb_array")
OFF_SCREEN = {  # MUJOCO_GL -> module of MuJoCo, the library that it needs
    "egl": ("mujoco.egl", "libEGL (Debian: libegl1 and libgl1-mesa-dri)"),
    "osmesa": ("mujoco.osmesa", "libOSMesa (Debian: libosmesa6)"),
    "glfw": ("mujoco.glfw", "GLFW and a display"),
}
GOAL_COLOUR = (0.1, 0.8, 0.2, 0.45)
SLOW, FAST = np.array([0.2, 0.4, 1.0, 0.9]), np.array([1.0, 0.2, 0.1, 0.9])  # colours of arrows, by |value| in the card's range
MOST_GEOMS = 2000
STEP_WITHOUT_TIME = 0.05  # s
GOAL_OF_A_SCENE = 0.03  # m, radius of the ball at a goal whose own radius differs by scene
Marker = tuple[str, np.ndarray, np.ndarray, Any]  # kind, centre (or start) and size (or end) in m, colour


def available_modes() -> list[str]:
    """Render modes that can work here: a window needs a display."""
    shown = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return list(MODES) if shown else ["rgb_array"]


def frames_per_second(body: Body) -> int:
    """What makes a video of a body as fast as it moves; 20 where a body has no `step_duration` in s."""
    return max(1, round(1.0 / getattr(body, "step_duration", STEP_WITHOUT_TIME)))


class Renderer:
    """Draws one family's states; holds a GL context from its first picture until it is closed."""

    def __init__(self, family: TaskFamily, body: Body, mode: str, framing: Framing | None = None, scenes: int = 1) -> None:
        """Prepare; nothing is opened yet.

        Args:
            family: whose tasks are marked.
            body: what is drawn.
            mode: `human` or `rgb_array`.
            framing: size and camera.
            scenes: how many models to keep loaded, where the states drawn in turn are of several.

        Raises:
            CardError: unknown mode, or a body that cannot be drawn.
        """
        if mode not in MODES:
            raise CardError(f"{family.id}: unknown render_mode {mode!r}; accepted: None, {', '.join(MODES)}")
        if type(body).drawing is Body.drawing:
            raise CardError(f"{family.id}: render_mode {mode!r}: body {family.card.body!r} cannot be drawn; accepted: None")
        self._family, self._body, self._mode, self._scenes = family, body, mode, scenes
        self._framing = framing or Framing()
        self._context: Any = None
        self._loaded: OrderedDict[int, _Scene] = OrderedDict()  # by the model's id, the one drawn last stands last

    @property
    def library(self) -> str | None:
        """What draws, as `MUJOCO_GL` names it; None before the first picture."""
        return None if self._context is None else type(self._context).__module__.rpartition(".")[2]

    def draw(self, drawing: Drawing, task: np.ndarray) -> np.ndarray | None:
        """The picture of a body in a task `(task_dim,)`: `(height, width, 3)` uint8, or None where a window shows it.

        Raises:
            CardError: no renderer works here, and the message names the libraries and `MUJOCO_GL`; no such camera; too large a picture.
        """
        mujoco = import_module("mujoco")
        if self._context is None:
            self._open()
        context: Any = self._context
        context.make_current()
        scene = self._scene_of(mujoco, drawing.model)
        scene.place(mujoco, drawing.position)
        centre = np.array(scene.data.subtree_com[1])
        for marker in markers(self._family, task, centre, drawing.goal):
            _add(mujoco, scene.shapes, marker)
        area = mujoco.MjrRect(0, 0, self._framing.width, self._framing.height)
        buffers = mujoco.mjtFramebuffer
        mujoco.mjr_setBuffer((buffers.mjFB_WINDOW if self._mode == "human" else buffers.mjFB_OFFSCREEN).value, scene.drawn)
        mujoco.mjr_render(area, scene.shapes, scene.drawn)
        if self._mode == "human":
            context.show()
            return None
        picture = np.empty((self._framing.height, self._framing.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, area, scene.drawn)
        return picture[::-1].copy()

    def _open(self) -> None:
        where, width, height = self._family.id, self._framing.width, self._framing.height
        self._context = _Window(where, width, height) if self._mode == "human" else _off_screen_context(where, width, height)
        self._free = weakref.finalize(self, self._context.free)  # also where nobody closes
        atexit.register(self._free)  # last in, first out: before MuJoCo's own exit takes EGL down, after which freeing fails

    def _scene_of(self, mujoco: Any, model: Any) -> _Scene:
        """What a model is drawn with, loaded on first use; the one not drawn for longest makes room."""
        if id(model) not in self._loaded:
            while len(self._loaded) >= self._scenes:
                self._loaded.popitem(last=False)[1].drawn.free()
            self._loaded[id(model)] = _Scene(mujoco, model, self._framing, self._body, self._family.id)
        self._loaded.move_to_end(id(model))
        return self._loaded[id(model)]

    def close(self) -> None:
        """Free the context; a later picture opens another."""
        if self._context is not None:
            self._context.make_current()
            for scene in self._loaded.values():
                scene.drawn.free()
            self._free()
            atexit.unregister(self._free)
            self._context = None
            self._loaded.clear()

    def __getstate__(self) -> dict[str, Any]:
        # a context cannot be copied; the copy opens its own
        kept = {key: value for key, value in self.__dict__.items() if key != "_free"}
        return {**kept, "_context": None, "_loaded": OrderedDict()}


class _Scene:
    """A model with its textures and meshes in a GL context, and the camera that looks at it."""

    def __init__(self, mujoco: Any, model: Any, framing: Framing, body: Body, where: str) -> None:
        self.model, self.data = model, mujoco.MjData(model)
        self._camera = framing.camera(mujoco, model, body.camera, where)
        self.shapes, self._shown = mujoco.MjvScene(model, MOST_GEOMS), mujoco.MjvOption()
        self._shown.sitegroup[:] = 0  # points of a model that stand for a goal stand elsewhere than the task's; the marker shows that
        model.vis.global_.offwidth, model.vis.global_.offheight = framing.width, framing.height
        try:
            self.drawn = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        except mujoco.FatalError as error:
            fault = " ".join(str(error).split())
            raise CardError(f"{where}: no picture of {framing.width} x {framing.height} pixels can be made here: {fault}") from None

    def place(self, mujoco: Any, position: np.ndarray) -> None:
        """Put the body at qpos `(positions,)` and collect the shapes that the camera sees."""
        self.data.qpos[:] = position
        mujoco.mj_forward(self.model, self.data)
        mujoco.mjv_updateScene(self.model, self.data, self._shown, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self.shapes)


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


def _off_screen_context(where: str, width: int = SIZE, height: int = SIZE) -> Any:
    """A GL context without a window: what `MUJOCO_GL` names, else the first of EGL and OSMesa that works."""
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    tried = [asked] if asked in OFF_SCREEN else ["egl", "osmesa"]
    faults = []
    for name in tried:
        module, library = OFF_SCREEN[name]
        try:
            with warnings.catch_warnings():
                if name == "glfw":
                    warnings.simplefilter("error")  # GLFW's binding warns of what went wrong
                context = import_module(module).GLContext(width, height)
                context.make_current()
            return context
        except Exception as error:  # PyOpenGL and GLFW raise whatever the missing library leads to
            faults.append(f"{name} needs {library}: {type(error).__name__}: {' '.join(str(error).split())[:100]}")
    accepted = "install one of these libraries, or set MUJOCO_GL to egl, osmesa or glfw"
    raise CardError(f"{where}: no renderer works with MUJOCO_GL={asked!r}: {'; '.join(faults)}; {accepted}")


class _Window:
    """A GLFW window."""

    def __init__(self, where: str, width: int, height: int) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # GLFW's binding warns of what went wrong
                self._glfw = import_module("glfw")
                if not self._glfw.init():
                    raise RuntimeError("GLFW cannot be started")
                self._window = self._glfw.create_window(width, height, "dmrlad-bench", None, None)
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
