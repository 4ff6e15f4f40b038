"""Gymnasium's RecordVideo films single and vector environments: the files hold every frame, at the size asked for."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.wrappers import RecordVideo
from gymnasium.wrappers.vector import RecordVideo as RecordVectorVideo
from imageio_ffmpeg import count_frames_and_secs, read_frames

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs import rendering

HORIZON = dmrlad_bench.family("PointGoal").horizon


@pytest.fixture(scope="module", autouse=True)
def renderer_works():
    try:
        rendering._off_screen_context("test").free()
    except CardError as error:
        pytest.skip(str(error))


def size_and_length(path):
    """Width and height in pixels, and seconds."""
    frames = read_frames(str(path))
    size = next(frames)["size"]
    frames.close()
    return size, count_frames_and_secs(str(path))[1]


def test_record_video_of_an_episode(tmp_path):
    env = gymnasium.make("DMRLAD/PointGoal-v0", render_mode="rgb_array", width=160, height=96)
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    for _ in range(2):
        env.reset(seed=0)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    env.close()
    files = sorted((tmp_path / "videos").glob("*.mp4"))
    assert [path.name for path in files] == ["rl-video-episode-0.mp4", "rl-video-episode-1.mp4"]
    for path in files:
        size, seconds = size_and_length(path)
        assert size == (160, 96) and seconds == pytest.approx((HORIZON + 1) / 20, abs=0.06)


def test_record_video_of_a_trial(tmp_path):
    """A trial of K episodes is one film."""
    env = dmrlad_bench.TrialWrapper(gymnasium.make("DMRLAD/PointGoal-v0", render_mode="rgb_array", width=32, height=32), episodes=2)
    env = RecordVideo(env, str(tmp_path / "videos"))
    env.reset(seed=0)
    for _ in range(2 * HORIZON):
        env.step(env.action_space.sample())
    env.close()
    _, seconds = size_and_length(tmp_path / "videos" / "rl-video-episode-0.mp4")
    assert seconds == pytest.approx((2 * HORIZON + 1) / 20, abs=0.06)


def test_vector_record_video_shows_all_rows(tmp_path):
    envs = gymnasium.make_vec("DMRLAD/PointGoal-v0", num_envs=4, render_mode="rgb_array", width=64, height=48)
    envs = RecordVectorVideo(envs, str(tmp_path / "videos"), episode_trigger=lambda episode: True)
    envs.reset(seed=0)
    for _ in range(HORIZON + 1):
        envs.step(envs.action_space.sample())
    envs.close()
    size, seconds = size_and_length(tmp_path / "videos" / "rl-video-episode-0.mp4")
    assert size == (2 * 64, 2 * 48) and seconds == pytest.approx((HORIZON + 1) / 20, abs=0.06)
    assert (tmp_path / "videos" / "rl-video-episode-1.mp4").exists()
