"""Pictures as Gymnasium's MuJoCo environments take them: size, camera, rows of the vector environment; and what `doctor` says of them."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs import rendering
from dmrlad_bench.envs.framing import LARGEST, Framing
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv
from dmrlad_bench.harness import machine

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
POINT, ANT, SAWYER, SCENES = "PointGoalSparse", "AntGoalSparse", "SawyerPushSparse", "ML10"


@pytest.fixture(scope="module")
def renderer_works():
    try:
        rendering._off_screen_context("test").free()
    except CardError as error:
        pytest.skip(str(error))


def picture(name: str | Path, **options: Any) -> np.ndarray:
    env = DMRLADEnv(name, render_mode="rgb_array", **options)
    env.reset(seed=0, options={"task": 1})
    drawn = env.render()
    env.close()
    assert drawn is not None
    return drawn


@pytest.mark.parametrize("name", [POINT, ANT, SAWYER, SCENES])
def test_width_and_height(renderer_works, name):
    assert picture(name).shape == (480, 480, 3)
    small = picture(name, width=96, height=64)
    assert small.shape == (64, 96, 3) and small.std() > 5


def test_make_takes_the_options_of_gymnasiums_mujoco_environments(renderer_works):
    env = gymnasium.make(f"DMRLAD/{SAWYER}-v0", render_mode="rgb_array", width=80, height=60, camera_name="topview")
    env.reset(seed=0)
    drawn: Any = env.render()
    assert drawn.shape == (60, 80, 3)
    env.close()
    listed = gymnasium.make(f"DMRLAD/{POINT}-v0", render_mode="rgb_array_list", width=40, height=40)
    listed.reset(seed=0)
    listed.step(np.zeros(2, np.float32))
    pictures: Any = listed.render()
    assert len(pictures) == 2 and pictures[0].shape == (40, 40, 3)
    listed.close()


@pytest.mark.parametrize("name", [SAWYER, SCENES])
def test_cameras_by_name_and_number(renderer_works, name):
    size = {"width": 64, "height": 64}
    corner = picture(name, camera_name="corner", **size)
    np.testing.assert_array_equal(corner, picture(name, camera_id=1, **size))
    others = [picture(name, **size), picture(name, camera_id=0, **size), picture(name, camera_id=-1, **size)]
    for other in others:
        assert (other != corner).mean() > 0.2
    assert (others[1] != others[2]).mean() > 0.2


def test_the_bodys_own_view_stays_where_no_camera_is_asked_for(renderer_works):
    np.testing.assert_array_equal(picture(ANT), picture(ANT, camera_name="track"))


BODY_OF_A_USER = """
import importlib, mujoco, numpy
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.drawings import Drawing

class Dot(Body):
    action_dim, measures, camera = 1, ("forward_velocity",), "front"
    @classmethod
    def observation_dim(cls, observation_extras=()): return 1
    def initial_state(self, generator): return numpy.zeros(1)
    def step(self, state, action): return state + 0.1 * action
    def observe(self, state): return state.copy()
    def measure(self, name, state, next_state): return (next_state - state) / 0.1
    def drawing(self, state):
        model = mujoco.MjModel.from_xml_string('''<mujoco><worldbody><light pos="0 0 3"/><geom type="plane" size="2 2 .1"/>
            <camera name="front" pos="0 -3 1" xyaxes="1 0 0 0 .3 1"/><camera name="above" pos="0 0 3"/>
            <body pos="0 0 .2"><joint type="slide" axis="1 0 0"/><geom size=".2" rgba="1 0 0 1"/></body></worldbody></mujoco>''')
        return Drawing(model, state)
"""


@pytest.fixture
def users_family(tmp_path, monkeypatch):
    """A card of a user's that names a body of a user's."""
    (tmp_path / "dot_of_a_user.py").write_text(BODY_OF_A_USER)
    text = (EXAMPLES / "CartVel.toml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("body"))
    card = tmp_path / "DotVel.toml"
    changed = text.replace(line, 'body = "dot_of_a_user:Dot"').replace("CartVel", "DotVel")
    card.write_text("\n".join("reconstruction_dims = 1" if row.startswith("reconstruction_dims") else row for row in changed.splitlines()))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield card
    sys.modules.pop("dot_of_a_user", None)


def test_bodies_of_users(renderer_works, users_family):
    size: dict[str, Any] = {"width": 50, "height": 40}
    front, above = picture(users_family, **size), picture(users_family, camera_name="above", **size)
    assert front.shape == (40, 50, 3) and (front != above).any()
    envs = DMRLADVectorEnv(2, users_family, render_mode="rgb_array", camera_id=1, **size)
    envs.reset(seed=0, options={"task": [1, 0]})
    drawn = envs.render()
    assert drawn is not None
    np.testing.assert_array_equal(drawn[0], above)
    envs.close()
    with pytest.raises(CardError, match=r"unknown camera_name 'abov' \(did you mean 'above'\?\); .*0 'front', 1 'above'"):
        picture(users_family, camera_name="abov")


nonsense: dict[str, Any] = {"text": "wide", "fraction": 3.5, "number": 5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, rf"width must be an integer of 1\.\.{LARGEST} pixels, got 0"),
        ({"height": -3}, "height must be an integer of 1"),
        ({"width": nonsense["text"]}, "width must be an integer of 1.*, got 'wide'"),
        ({"height": nonsense["fraction"]}, "height must be .*, got 3.5"),
        ({"width": True}, "width must be .*, got True"),
        ({"width": 10**9}, rf"width must be an integer of 1\.\.{LARGEST}"),
        ({"camera_id": 0, "camera_name": "track"}, "camera_id 0 and camera_name 'track': give one of them, not both"),
        ({"camera_id": -2}, "camera_id must be an integer of at least -1, got -2"),
        ({"camera_id": nonsense["text"]}, "camera_id must be an integer of at least -1, got 'wide'"),
        ({"camera_name": nonsense["number"]}, "camera_name must be a text, got 5"),
    ],
)
def test_bad_sizes_and_cameras_are_one_line_at_once(options, message):
    for make in (lambda: DMRLADEnv(ANT, render_mode="rgb_array", **options), lambda: DMRLADVectorEnv(2, ANT, **options)):
        with pytest.raises(CardError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value) and str(caught.value).startswith("DMRLAD/AntGoalSparse-v0: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera_name": "trak"}, r"unknown camera_name 'trak' \(did you mean 'track'\?\); cameras of this model: 0 'track'"),
        ({"camera_name": ""}, "unknown camera_name ''; cameras of this model"),
        ({"camera_id": 1}, r"camera_id 1 is out of range; accepted: -1 \(free\); cameras of this model: 0 'track'"),
    ],
)
def test_a_camera_that_the_model_lacks_is_one_line(renderer_works, options, message):
    with pytest.raises(CardError, match=message) as caught:
        picture(ANT, **options)
    assert "\n" not in str(caught.value)


def test_framings_hold_what_numpy_counts_as_integers():
    Framing(np.int64(4), np.int32(5), camera_id=np.int64(0)).check("here")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", [POINT, ANT, SAWYER, SCENES])
def test_rows_are_drawn_as_single_environments_are(renderer_works, name):
    """Also after steps, and where rows live in scenes of their own, whatever was drawn between."""
    size: dict[str, Any] = {"width": 64, "height": 48}
    tasks = [1, len(dmrlad_bench.family(name).tasks("train")) - 1]
    envs = DMRLADVectorEnv(2, name, render_mode="rgb_array", threads=2, **size)
    singles = [DMRLADEnv(name, render_mode="rgb_array", **size) for _ in tasks]
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset before render"):
        envs.render()
    envs.reset(seed=5, options={"task": tasks})
    for row, env in enumerate(singles):
        env.reset(seed=5 + row, options={"task": tasks[row]})
    for _ in range(2):
        drawn = envs.render()
        assert isinstance(drawn, tuple) and len(drawn) == 2
        for row, env in enumerate(singles):
            expected = env.render()
            assert expected is not None and drawn[row].dtype == np.uint8
            np.testing.assert_array_equal(drawn[row], expected)
        action = np.full((2, *(singles[0].action_space.shape or ())), 0.5, np.float32)
        envs.step(action)
        for row, env in enumerate(singles):
            env.step(action[row])
    assert (drawn[0] != drawn[1]).any()
    envs.close()
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        envs.render()
    for env in singles:
        env.close()


def test_pictures_leave_the_numbers_of_rows_alone(renderer_works):
    plain, drawn = (
        DMRLADVectorEnv(2, SCENES, threads=2),
        DMRLADVectorEnv(2, SCENES, threads=2, render_mode="rgb_array", width=16, height=16),
    )
    np.testing.assert_equal(plain.reset(seed=3), drawn.reset(seed=3))
    for action in np.random.default_rng(0).uniform(-1, 1, (3, 2, 4)):
        drawn.render()
        np.testing.assert_equal(plain.step(action), drawn.step(action))
    plain.close()
    drawn.close()


def test_the_vector_environment_without_pictures_and_its_metadata():
    envs = DMRLADVectorEnv(2, POINT)
    envs.reset(seed=0)
    assert envs.render() is None and envs.render_mode is None and envs.metadata["render_modes"] == ["rgb_array"]
    envs.close()
    with pytest.raises(CardError, match="render_mode 'human' is not supported side by side; accepted: None, rgb_array"):
        DMRLADVectorEnv(2, POINT, render_mode="human")


def test_copies_of_a_drawn_vector_environment_draw_the_same(renderer_works):
    envs = DMRLADVectorEnv(2, ANT, render_mode="rgb_array", width=32, height=32)
    envs.reset(seed=0)
    drawn, twin = envs.render(), copy.deepcopy(envs)
    np.testing.assert_array_equal(np.array(drawn), np.array(twin.render()))
    envs.close()
    np.testing.assert_array_equal(np.array(drawn), np.array(twin.render()))
    twin.close()


@pytest.mark.parametrize(("name", "expected"), [(POINT, 20), (ANT, 20), ("HopperVelSparse", 125), (SAWYER, 80), (SCENES, 80)])
def test_videos_are_as_fast_as_the_body(name, expected):
    assert DMRLADEnv(name).metadata["render_fps"] == expected
    envs = DMRLADVectorEnv(1, name)
    assert envs.metadata["render_fps"] == expected
    envs.close()


@pytest.mark.parametrize("name", [POINT, ANT])
def test_gymnasium_checker_with_pictures(renderer_works, name):
    env = gymnasium.make(f"DMRLAD/{name}-v0", render_mode="rgb_array", width=32, height=32)
    check_env(env.unwrapped)
    env.close()


def test_is_success_stands_beside_success():
    name = POINT
    env, envs = DMRLADEnv(name, task=3), DMRLADVectorEnv(1, name, task=3)
    env.reset(seed=0)
    envs.reset(seed=0)
    goal = env.family.tasks("train")[3]
    seen = set()
    for _ in range(15):
        action = np.clip(goal, -0.7, 0.7) if len(seen) < 2 else np.zeros(2)
        info, infos = env.step(action)[4], envs.step(action[None])[4]
        assert type(info["is_success"]) is bool and info["is_success"] == info["success"] == infos["is_success"][0] == infos["success"][0]
        assert infos["_is_success"].all()
        seen.add(info["is_success"])
    assert seen == {False, True}
    envs.close()


LEFT_OPEN = """
import gymnasium, dmrlad_bench
env = gymnasium.make("DMRLAD/PointGoal-v0", render_mode="rgb_array")
envs = gymnasium.make_vec("DMRLAD/AntGoal-v0", num_envs=2, render_mode="rgb_array", width=32, height=32)
for made in (envs, env):
    made.reset(seed=0)
    made.step(made.action_space.sample())  # opens native threads, which have an end of their own
    made.render()
"""


def test_a_script_that_closes_nothing_ends_quietly(renderer_works):
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor_says_what_a_users_picture_would(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        found = machine._renderer()
        assert found.startswith("MUJOCO_GL=glfw: does not draw: ") and "glfw needs GLFW and a display" in found and "\n" not in found
    monkeypatch.delenv("MUJOCO_GL")
    try:
        context = rendering._off_screen_context("test")
    except CardError:
        assert machine._renderer().startswith("MUJOCO_GL=(not set): does not draw: DMRLAD/PointGoal-v0: no renderer works")
        return
    library = type(context).__module__.rpartition(".")[2]
    context.free()
    assert machine._renderer() == f"MUJOCO_GL=(not set): draws, through {library}"


def test_a_picture_too_large_for_the_library_is_one_line(renderer_works, monkeypatch):
    mujoco: Any = import_module("mujoco")

    def refuse(model: Any, scale: Any) -> None:
        raise mujoco.FatalError("Offscreen framebuffer is not complete,\n error 0x8cdd")

    monkeypatch.setattr(mujoco, "MjrContext", refuse)
    with pytest.raises(
        CardError, match="no picture of 70 x 50 pixels can be made here: Offscreen framebuffer is not complete, error 0x8cdd"
    ):
        picture(POINT, width=70, height=50)
