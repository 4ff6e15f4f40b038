"""The published family cards: sizes, disjoint and even splits, pinned digests, rewards and success by hand, bad cards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import dmrlad_bench
from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.family import family

# id -> (train, test, ood, horizon, observation entries, digest). Whoever changes results publishes a new version instead.
PUBLISHED = {
    "DMRLAD/CheetahVel-v0": (100, 30, 10, 200, 17, "16c9f56648ee33614b9d0b0c03024a1a747a2e90dd654248cd2fa1bc27bf222e"),
    "DMRLAD/CheetahVelSparse-v0": (50, 30, 10, 200, 17, "8979bf5171350196b55b774fc3b33a9cdc80954077ad67f59c1d36df7da15e43"),
    "DMRLAD/PointGoal-v0": (80, 20, 10, 20, 2, "5f82843311fc5f9dfd3c4252e6f0ad41a43b721a32239b12a67ee2ed8a05e08c"),
    "DMRLAD/PointGoalSparse-v0": (80, 20, 10, 20, 2, "e11453c3ac2bda94f350d49dc9ee166c47d2c7b86f3a817fc6f5307960828c51"),
}
every_family = pytest.mark.parametrize("name", dmrlad_bench.families())


def test_published_families():
    assert dmrlad_bench.families() == sorted(PUBLISHED)


def test_public_names():
    assert dmrlad_bench.family is family
    assert callable(dmrlad_bench.train) and callable(dmrlad_bench.evaluate)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = dmrlad_bench.trian  # type: ignore


@every_family
def test_card_is_as_published(name):
    task_family = dmrlad_bench.family(name)
    train, test, ood, horizon, observation_dim, digest = PUBLISHED[name]
    assert [len(task_family.tasks(split)) for split in task_family.splits] == [train, test, ood]
    assert (task_family.horizon, task_family.observation_dim) == (horizon, observation_dim)
    assert task_family.digest == digest
    assert task_family.id == name and f"DMRLAD/{task_family.name}-v0" == name


@every_family
def test_splits_are_disjoint_even_as_float32(name):
    task_family = family(name)
    tasks = np.concatenate([task_family.tasks(split) for split in task_family.splits]).astype(np.float32)
    assert len(np.unique(tasks, axis=0)) == len(tasks)


@every_family
@pytest.mark.parametrize("split", ["train", "test"])
def test_tasks_cover_their_range_evenly(name, split):
    task_family = family(name)
    goal, tasks = task_family.card.goal, task_family.tasks(split)
    position = np.arctan2(tasks[:, 1], tasks[:, 0]) if task_family.task_dim == 2 else tasks[:, 0]
    share = (position - goal.low) / (goal.high - goal.low) * len(tasks)
    np.testing.assert_array_equal(np.floor(share), np.arange(len(tasks)))


@pytest.mark.parametrize(("sparse", "dense"), [("CheetahVelSparse", "CheetahVel"), ("PointGoalSparse", "PointGoal")])
def test_twins_share_reward_numbers_and_test_tasks(sparse, dense):
    one, other = family(sparse), family(dense)
    assert one.card.reward.model_copy(update={"kind": "dense"}) == other.card.reward
    for split in ("test", "ood"):
        np.testing.assert_array_equal(one.tasks(split), other.tasks(split))


@every_family
def test_sparse_reward_outside_tells_nothing_about_the_task(name):
    task_family = family(name)
    tasks = np.concatenate([task_family.tasks(split) for split in task_family.splits]).astype(np.float32)
    outcome = np.full((1, task_family.outcome_dim), 50.0, np.float32)
    assert len(np.unique(task_family.sparse_reward(outcome, tasks))) == 1


def test_cheetah_rewards_by_hand():
    task_family = family("CheetahVelSparse")
    outcome = np.array([[1.0, 2.0], [1.05, 2.0], [1.11, 2.0], [-1.0, 0.0]])
    task = np.array([1.0])
    np.testing.assert_allclose(task_family.sparse_reward(outcome, task), [2 - 1, 1.95 - 1, -2 - 1, -2])
    np.testing.assert_allclose(task_family.dense_reward(outcome, task), [-0.1, -0.15, -0.21, -2.0])
    assert task_family.success(outcome, task).tolist() == [True, True, False, False]
    np.testing.assert_array_equal(task_family.reward(outcome, task), task_family.sparse_reward(outcome, task))
    np.testing.assert_array_equal(family("CheetahVel").reward(outcome, task), task_family.dense_reward(outcome, task))


def test_point_rewards_by_hand():
    task_family = family("PointGoalSparse")
    outcome = np.array([[0.0, 1.0, 2.0], [0.06, 1.08, 0.5], [0.0, 0.7, 0.0], [3.0, 5.0, 0.0]])
    task = np.array([0.0, 1.0])
    np.testing.assert_allclose(task_family.sparse_reward(outcome, task), [1, 0.9, 0, 0])
    np.testing.assert_allclose(task_family.dense_reward(outcome, task), [0, -0.1, -0.3, -5])
    assert task_family.success(outcome, task).tolist() == [True, True, False, False]


def test_reward_passes_gradients_and_keeps_the_type():
    outcome = torch.tensor([[1.05, 2.0]], requires_grad=True)
    reward = family("CheetahVelSparse").reward(outcome, torch.tensor([1.0]))
    assert reward.dtype == torch.float32
    (gradient,) = torch.autograd.grad(reward.sum(), outcome)
    np.testing.assert_allclose(gradient, [[-1.0, -0.5]])


def test_episode_success_by_fraction_of_the_second_half():
    rule = family("CheetahVelSparse").episode_success
    flags = np.zeros((5, 8), dtype=bool)
    flags[0, 4:6] = True  # 2 of 4 in the second half
    flags[1, :5] = True  # 1 of 4
    flags[2, 3:] = True  # length 4: step 3 of steps 2..3; what lies behind does not count
    flags[3, 4:] = True  # length 4: nothing
    flags[4, 0] = True  # length 1
    assert rule(flags, np.array([8, 8, 4, 4, 1])).tolist() == [True, False, True, False, True]


def test_episode_success_by_final_step():
    flags = np.array([[False, False, True], [True, True, False], [False, True, False]])
    assert family("PointGoalSparse").episode_success(flags, np.array([3, 3, 2])).tolist() == [True, False, True]


def test_episode_success_by_any_step(tmp_path):
    any_step = family(_changed(tmp_path, 'success = "final"', 'success = "any"'))
    flags = np.array([[False, False, False], [True, False, False], [False, False, True]])
    assert any_step.episode_success(flags, np.array([3, 3, 2])).tolist() == [False, True, False]


def test_own_card_from_a_file(tmp_path):
    task_family = family(_changed(tmp_path, "horizon = 20", "horizon = 7"))
    env = task_family.make_vec(2)
    env.reset(seed=0)
    assert [env.step(np.zeros((2, 2)))[3].all() for _ in range(7)] == [False] * 6 + [True]
    assert task_family.digest != PUBLISHED["DMRLAD/PointGoalSparse-v0"][-1]


def test_x_position_is_an_observation_extra(tmp_path):
    path = _changed(tmp_path, "horizon = 200", 'horizon = 200\nobservation_extras = ["x_position"]', card="CheetahVelSparse")
    task_family = family(path)
    env = task_family.make_vec(2)
    observation, _ = env.reset(seed=0)
    hidden, _ = family("CheetahVelSparse").make_vec(2).reset(seed=0)
    assert task_family.observation_dim == 18 and observation.shape == (2, 18)
    np.testing.assert_array_equal(observation[:, 1:], hidden)


BAD_CARDS = [
    ('body = "point"', 'body = "piont"', r"key 'body': unknown body 'piont' \(did you mean 'point'\?\); accepted: point, half_cheetah"),
    ('body = "point"', 'body = "half_cheetah"', r"key 'goal.kind': body 'half_cheetah' has no 'planar_position'"),
    (
        'success = "final"',
        'success = "final"\nobservation_extras = ["x_position"]',
        r"'observation_extras': body 'point' has no 'x_position'",
    ),
    ("radius = 1.0", "", r"key 'goal.radius' is missing; goal kind 'planar_goal' needs it"),
    ("radius = 1.0", "radius = 2.0", r"key 'tasks.train': task .* lies outside the range of 'goal'"),
    ("low = 0.0", "low = 4.0", r"key 'goal.low': must be below 'goal.high'"),
    ("ood = [", "ood = [[0.6, 0.8],", r"key 'tasks.ood': task \[0.6, 0.8\] lies inside the range of 'goal'"),
    ("train = [", "train = [[0.6, 0.8],", None),
    ("reconstruction_dims = 2", "reconstruction_dims = 3", r"key 'reconstruction_dims': at most 2"),
    ("train = [", "train = [[0.6],", r"same number of entries"),
    ("[reward]", "[reward]\nscale = 1.0", r"unknown key 'reward.scale'"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_CARDS)
def test_bad_cards_are_one_clear_line(tmp_path, old, new, message):
    path = _changed(tmp_path, old, new)
    if message is None:  # the control: a changed card that is fine
        assert len(family(path).tasks("train")) == 81
        return
    with pytest.raises(CardError, match=message) as caught:
        family(path)
    assert "\n" not in str(caught.value)


def test_wrong_task_size_for_the_goal_kind(tmp_path):
    path = _changed(
        tmp_path, f'kind = "planar_goal"\nlow = 0.0\nhigh = {math.pi!r}\nradius = 1.0', 'kind = "velocity"\nlow = 0.0\nhigh = 3.0'
    )
    text = path.read_text().replace('body = "point"', 'body = "half_cheetah"')
    path.write_text(text)
    with pytest.raises(CardError, match=r"key 'tasks.train': goal kind 'velocity' needs 1 entries a task"):
        family(path)


def _changed(folder, old, new, card="PointGoalSparse"):
    text = (register_folder("envs") / f"{card}.toml").read_text()
    assert old in text
    path = folder / "Changed.toml"
    path.write_text(text.replace(old, new, 1))
    return path
