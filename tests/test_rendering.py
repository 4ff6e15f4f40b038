"""Pictures: what they show, and what is said where nothing can draw them. Skipped where no off-screen renderer works."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs import rendering
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv

DRAWN = [
    "PointGoalSparse",
    "CheetahVelSparse",
    "AntGoalSparse",
    "HopperVelSparse",
    "WalkerVelSparse",
    "CheetahMultiTask",
    "SawyerPushSparse",
    "ML1Reach",
]


@pytest.fixture(scope="module")
def renderer_works():
    try:
        rendering._off_screen_context("test").free()
    except CardError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_show_the_task(renderer_works, name):
    env = gymnasium.make(f"DMRLAD/{name}-v0", render_mode="rgb_array", disable_env_checker=True).unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.render()
    pictures = []
    for task in (1, len(family(name).tasks("train")) - 1):
        env.reset(seed=0, options={"task": task})
        pictures.append(env.render())
        assert pictures[-1].shape == (480, 480, 3) and pictures[-1].dtype == np.uint8 and pictures[-1].std() > 5
    assert (pictures[0] != pictures[1]).any()
    env.step(np.ones(env.action_space.shape or ()))
    assert (env.render() != pictures[1]).any()
    env.close()
    env.close()


@pytest.mark.parametrize("name", ["AntVelSparse", "SawyerPickPlaceSparse", "ML1Push"])
def test_pictures_leave_the_numbers_alone(renderer_works, name):
    plain, drawn = DMRLADEnv(name), DMRLADEnv(name, render_mode="rgb_array")
    np.testing.assert_array_equal(plain.reset(seed=3)[0], drawn.reset(seed=3)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (5, plain.family.action_dim)):
        drawn.render()
        np.testing.assert_equal(plain.step(action), drawn.step(action))
    drawn.close()


def test_another_scene_is_drawn_as_another_scene(renderer_works):
    """ML10's scenes are models of their own: what was loaded of one must not show in the next, and the first comes back the same."""
    env = DMRLADEnv("ML10", render_mode="rgb_array")
    scenes = env.family.tasks("train")[:, 0]
    first, other = (int(np.flatnonzero(scenes == scene)[0]) for scene in np.unique(scenes)[:2])
    pictures = []
    for task in (first, other, first):
        env.reset(seed=0, options={"task": task})
        pictures.append(env.render())
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert (pictures[0] != pictures[1]).any(axis=2).mean() > 0.02
    env.close()


@pytest.mark.parametrize("name", dmrlad_bench.families())
def test_every_published_body_can_be_drawn(name):
    body = family(name).make_body()
    assert type(body).drawing is not Body.drawing
    body.close()


def test_markers():
    centre = np.zeros(3)
    ((kind, place, _, _),) = rendering.markers(family("PointGoalSparse"), np.array([0.6, 0.8]), centre)
    assert kind == "ball" and place.tolist() == [0.6, 0.8, 0.1]
    ((kind, start, end, slow),) = rendering.markers(family("CheetahVelSparse"), np.array([0.5]), centre)
    ((_, _, further, fast),) = rendering.markers(family("CheetahVelSparse"), np.array([2.5]), centre)
    assert kind == "arrow" and start[0] < end[0] < further[0] and slow[0] < fast[0]
    ((_, start, end, _),) = rendering.markers(family("AntDir"), np.array([-1.0]), centre)
    assert end[0] < start[0]
    ((kind, place, _, _),) = rendering.markers(family("CheetahMultiTask"), np.array([4.0, 7.0]), centre)
    assert kind == "bar" and place[0] == 7.0
    ((kind, place, size, _),) = rendering.markers(family("SawyerPushSparse"), np.array([0.05, 0.85, 0.02]), centre)
    assert kind == "ball" and place.tolist() == [0.05, 0.85, 0.02] and size[0] == 0.05
    ((kind, place, _, _),) = rendering.markers(family("ML10"), family("ML10").tasks("train")[0], centre, np.array([0.1, 0.8, 0.2]))
    assert kind == "ball" and place.tolist() == [0.1, 0.8, 0.2]


def test_the_marker_of_a_scene_stands_at_metaworlds_goal():
    """Reach: the goal is the last half of the task; where a scene computes its goal, only Meta-World knows."""
    env = DMRLADEnv("ML1Reach")
    env.reset(seed=0, options={"task": 4})
    goal = env._episodes.drawing(0).goal
    assert goal is not None
    np.testing.assert_allclose(goal, env.family.tasks("train")[4, 4:], atol=1e-6)


def test_without_a_renderer_the_error_names_libraries_and_the_variable(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco.egl", None)
    monkeypatch.setitem(sys.modules, "mujoco.osmesa", None)
    env = DMRLADEnv("PointGoalSparse", render_mode="rgb_array")
    env.reset(seed=0)
    for asked, expected in (("", ["libEGL", "libOSMesa"]), ("osmesa", ["libOSMesa"])):
        monkeypatch.setenv("MUJOCO_GL", asked)
        with pytest.raises(CardError, match="MUJOCO_GL") as caught:
            env.render()
        assert "\n" not in str(caught.value)
        for library in expected:
            assert library in str(caught.value)


def test_a_window_is_offered_where_there_is_a_display(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert DMRLADEnv("PointGoal").metadata["render_modes"] == ["rgb_array"]
    monkeypatch.setenv("DISPLAY", ":0")
    assert DMRLADEnv("PointGoal").metadata["render_modes"] == ["human", "rgb_array"]


class Glfw:
    """A window library that does as it is told, and remembers what was asked of it."""

    def __init__(self, starts: bool, opens: bool) -> None:
        self.starts, self.opens = starts, opens

    def init(self) -> bool:
        return self.starts

    def create_window(self, *size_and_title: object) -> object:
        return object() if self.opens else None


@pytest.mark.parametrize("library", [None, Glfw(False, False), Glfw(True, False)], ids=["missing", "no display", "no window"])
def test_without_a_window_the_error_names_what_is_missing(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "glfw", library)
    env = DMRLADEnv("CheetahVel", render_mode="human")
    with pytest.raises(CardError, match=r"CheetahVel-v0: render_mode 'human': no window can be opened: .*MUJOCO_GL") as caught:
        env.reset(seed=0)
    message = str(caught.value)
    assert "GLFW and a display (DISPLAY or WAYLAND_DISPLAY)" in message and "'rgb_array'" in message and "\n" not in message
    env.close()


def test_without_a_display_the_real_library_leads_to_the_same_error(monkeypatch):
    pytest.importorskip("glfw")
    if sys.platform != "linux":
        pytest.skip("other systems have a display of their own")
    monkeypatch.setenv("DISPLAY", ":971")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    env = gymnasium.make("DMRLAD/PointGoal-v0", render_mode="human")
    with pytest.raises(CardError, match="no window can be opened: GLFWError"):
        env.reset(seed=0)
