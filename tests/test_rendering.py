"""Pictures: what they show, and what is said where nothing can draw them. Skipped where no off-screen renderer works."""

from __future__ import annotations

import sys

import gymnasium
import numpy as np
import pytest

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs import rendering
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv

DRAWN = ["PointGoalSparse", "CheetahVelSparse", "AntGoalSparse", "HopperVelSparse", "WalkerVelSparse", "CheetahMultiTask"]


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
    for task in (0, len(family(name).tasks("train")) - 1):
        env.reset(seed=0, options={"task": task})
        pictures.append(env.render())
        assert pictures[-1].shape == (360, 480, 3) and pictures[-1].dtype == np.uint8 and pictures[-1].std() > 5
    assert (pictures[0] != pictures[1]).any()
    env.step(np.ones(env.action_space.shape or ()))
    assert (env.render() != pictures[1]).any()
    env.close()
    env.close()


def test_pictures_leave_the_numbers_alone(renderer_works):
    plain, drawn = DMRLADEnv("AntVelSparse"), DMRLADEnv("AntVelSparse", render_mode="rgb_array")
    np.testing.assert_array_equal(plain.reset(seed=3)[0], drawn.reset(seed=3)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 8)):
        drawn.render()
        np.testing.assert_equal(plain.step(action), drawn.step(action))
    drawn.close()


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
