"""The published family cards: sizes, disjoint and even splits, pinned digests, rewards and success by hand, bad cards."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import dmrlad_bench
from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.bodies import Body
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.multi_task import is_direction
from dmrlad_bench.protocol import SPLITS

# id -> (train, validation, test, ood, horizon, observation entries, digest). Whoever changes results publishes a new version instead.
PUBLISHED = {
    "DMRLAD/AntDir-v0": (2, 2, 2, 0, 200, 27, "9c216741d6000e74751fec74d7c5734ed3f0b9371265967567333d7482c0da9d"),
    "DMRLAD/AntDirNonStationary-v0": (2, 2, 2, 0, 800, 27, "4758c91accd91bf56dbe56955c5ca7861062c7c574e71a0547cb65574712ab48"),
    "DMRLAD/AntGoal-v0": (100, 30, 30, 10, 200, 29, "463770ea76b9296f6309d6f3d5259dba95b7305c81ae7eb23c7c15a2eb7ceddb"),
    "DMRLAD/AntGoalSparse-v0": (100, 30, 30, 10, 200, 29, "d2bc8371aada8c5a83cb9ab28d4112be2cb37ea2ee9850f21892531854842033"),
    "DMRLAD/AntVelNonStationary-v0": (100, 30, 30, 10, 800, 27, "d527b9327c408eb7f57b63d0a8f7d496bbc2ba82bf82c32a81c2c34ab9b92f1e"),
    "DMRLAD/AntVelSparse-v0": (50, 15, 15, 10, 300, 27, "5f05dd134367c8cbd367b65369e3b87462a466000377f1e82d4e78c6666a1b1d"),
    "DMRLAD/CheetahDir-v0": (2, 2, 2, 0, 200, 17, "cced71fe8af23d617c3eea8d0dba15c9920482370b7b9e44c92a9af58167fb56"),
    "DMRLAD/CheetahDirContinual-v0": (2, 2, 2, 0, 800, 17, "01206519f8644589e2cfcd02dd3be72bc0815cca35a4619bc4279ce435c011a4"),
    "DMRLAD/CheetahDirNonStationary-v0": (2, 2, 2, 0, 800, 17, "e11ec93b6902cf020909ac449142b3f6e616d8c0611bca7ad7268ed770f77b0b"),
    "DMRLAD/CheetahGoalSparse-v0": (50, 30, 30, 10, 200, 18, "8d7cdd6dd7a6ac6a0835cfbce2716cb843cd03573fa19ebee310ff11ecf657b1"),
    "DMRLAD/CheetahMultiTask-v0": (100, 30, 30, 14, 200, 18, "004bb7543c33078a99d661d3113dc20c9eedbc6b152418dcd558b4d0e0bc9eec"),
    "DMRLAD/CheetahMultiTaskSparse-v0": (60, 32, 32, 12, 200, 18, "79ca679cecee832173ad16a4c396458a251eaf8e7b76dd1c26c9e573df76deaf"),
    "DMRLAD/CheetahRandMass-v0": (40, 10, 10, 10, 200, 17, "eee3992e2caaa50014513f3ed25ff58f042c41ab2af884727db1f753e505acd3"),
    "DMRLAD/CheetahVel-v0": (100, 30, 30, 10, 200, 17, "d39d2d2d660c45d17db237395d738952f8de9ea42ab4b4cf5152a6186e0f2168"),
    "DMRLAD/CheetahVelNonStationary-v0": (100, 30, 30, 10, 800, 17, "547b0282bd0bc256f02cae5280007895e1f4a524b3e6c015c524721524b58cd5"),
    "DMRLAD/CheetahVelSparse-v0": (50, 30, 30, 10, 200, 17, "a124ced7cb03ffb7f503f6d67cbe7d2237ee1e80b9badd4dad051ec3c5da501d"),
    "DMRLAD/HopperRandParams-v0": (40, 10, 10, 10, 200, 11, "a152d0346b4ce81b2fe6d29a043e537285330daeaada5d5c952676ce8f33737e"),
    "DMRLAD/HopperVelNonStationary-v0": (100, 30, 30, 10, 800, 11, "29b8bddae184d3f4d642f15c7b6d6391c7a4068c0fee779fc48a2795dc4a272d"),
    "DMRLAD/HopperVelSparse-v0": (50, 15, 15, 10, 200, 11, "5d0bebe7985abbc241b8c159d7701bf64e416f3d6fbd378b45866526816a22c2"),
    "DMRLAD/ML10-v0": (500, 50, 250, 0, 500, 39, "8d2e45f85dc26425b6cc5c712d86a913379989efc49370cde3fdf19be4cea1df"),
    "DMRLAD/ML1PickPlace-v0": (50, 30, 50, 0, 500, 39, "093db8dc413d8135084e79b3e9ef106ba6773f174c5122e0f8c999879fbcd332"),
    "DMRLAD/ML1Push-v0": (50, 30, 50, 0, 500, 39, "03a09539f41bd959a953e7024d51d4287d85efc6291e435b5b703f560439c5bc"),
    "DMRLAD/ML1Reach-v0": (50, 30, 50, 0, 500, 39, "0bc39e57b7e0c966793093463df7c64b00e169e33dd77030a0ada8e60994695b"),
    "DMRLAD/ML3-v0": (150, 30, 150, 0, 500, 39, "c3ac7fc96ff97da36537b6c22839f720946830fcf80218c2fe9cc7b0d7ee9c2f"),
    "DMRLAD/ML45-v0": (2250, 225, 250, 0, 500, 39, "675452d13a2bc84c173cdaadd4ed70ff5ed98d7b7146bdccc9c189b40659dcae"),
    "DMRLAD/PointGoal-v0": (80, 20, 20, 10, 20, 2, "1409931cbea2f81985f3e80799ac42264e5460d3d81ae9db7643cb14cbfb027f"),
    "DMRLAD/PointGoalSparse-v0": (80, 20, 20, 10, 20, 2, "a3c1585ccb6c58b6db39a3f6cc8a0cedb5c5482de72008d981440dc40f84bdcb"),
    "DMRLAD/SawyerPickPlaceSparse-v0": (50, 10, 10, 10, 150, 39, "c6e3e08d72d1a10f6b80e49ddebb8d8be2a251924f2d17211c6ba7cd28928311"),
    "DMRLAD/SawyerPushSparse-v0": (50, 10, 10, 10, 150, 39, "cbc50e8a3ee06914c000e97d5a3e147a19e3f65ebc0c34ce018795f1c189b3f3"),
    "DMRLAD/SawyerReachSparse-v0": (50, 10, 10, 10, 150, 39, "ce74d766b247a28348a6caef8cabf6d50afcbc784e56a68264728fe8e93abdd9"),
    "DMRLAD/WalkerRandParams-v0": (40, 10, 10, 10, 200, 17, "34af5929f0d532d808d4d3f4bb0fb9f5840758f60039c6ed52761e73a0763a2b"),
    "DMRLAD/WalkerRandParamsNonStationary-v0": (
        100,
        30,
        30,
        10,
        800,
        17,
        "239deb4abcfe60736789ef18baf35f055003ee96256356b3f50b616330702ec0",
    ),
    "DMRLAD/WalkerVelNonStationary-v0": (100, 30, 30, 10, 800, 17, "7b56d32c86fd298ceeb81dd38546ffad8e22aa92bd3d66c9ac7f5fd625ebc9b3"),
    "DMRLAD/WalkerVelSparse-v0": (50, 15, 15, 10, 200, 17, "01be84f0a8d91705d6b54fb662c4854004374f3d1335180ef38fe7c050a211c9"),
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
    *sizes, horizon, observation_dim, digest = PUBLISHED[name]
    assert [len(getattr(task_family.card.tasks, split)) for split in SPLITS] == sizes
    assert (task_family.horizon, task_family.observation_dim) == (horizon, observation_dim)
    assert task_family.digest == digest
    assert task_family.id == name and f"DMRLAD/{task_family.name}-v0" == name


@every_family
def test_splits_are_disjoint_even_as_float32(name):
    task_family = family(name)
    tasks = np.concatenate([task_family.tasks(split) for split in task_family.splits]).astype(np.float32)
    if task_family.card.tasks.same_tasks:  # stated on the card: directions, of which there are two
        goal = task_family.card.goal
        tasks = tasks[~is_direction(tasks, goal)] if goal.kind == "multi_task" else tasks[:0]
    assert len(np.unique(tasks, axis=0)) == len(tasks)


def test_the_exception_from_disjoint_splits_is_stated_where_it_is_made():
    stated = [name for name in dmrlad_bench.families() if family(name).card.tasks.same_tasks]
    assert {"DMRLAD/AntDir-v0", "DMRLAD/CheetahDir-v0", "DMRLAD/CheetahMultiTask-v0"} <= set(stated)
    for name in stated:
        assert family(name).card.goal.kind in ("direction", "multi_task")
    for name in ("AntDir", "CheetahDir"):
        np.testing.assert_array_equal(family(name).tasks("train"), [[-1], [1]])
        np.testing.assert_array_equal(family(name).tasks("test"), [[-1], [1]])


@every_family
def test_falling_never_pays(name):
    """Where an episode ends at a fall, a body that stands at rest is paid no less than nothing in every task."""
    task_family = family(name)
    falls = type(task_family.make_body()).terminated is not Body.terminated
    if not (falls and task_family.card.terminates):
        return
    tasks = np.concatenate([task_family.tasks(split) for split in ("train", "test")])
    assert task_family.reward(np.zeros((len(tasks), task_family.outcome_dim)), tasks).min() >= 0


@every_family
@pytest.mark.parametrize("split", ["train", "test"])
def test_tasks_cover_their_range_evenly(name, split):
    task_family = family(name)
    goal, tasks = task_family.card.goal, task_family.tasks(split)
    if goal.kind == "multi_task":
        ranges = [(variant.low, variant.high) for variant in goal.variants if variant.quantity != "direction"]
        numbers = [number for number, variant in enumerate(goal.variants) if variant.quantity != "direction"]
        lists = [tasks[tasks[:, 0] == number, 1] for number in numbers]
    elif goal.kind == "planar_goal":
        ranges, lists = [(goal.low, goal.high)], [np.mod(np.arctan2(tasks[:, 1], tasks[:, 0]), 2 * math.pi)]
    elif goal.kind == "physics":  # the first body's mass; test_envs_physics.py looks at all multipliers
        ranges, lists = [(goal.low, goal.high)], [np.log(tasks[:, 0]) / np.log(1.5)]
    else:
        ranges, lists = [(goal.low, goal.high)], [tasks[:, 0]]
    if goal.kind in ("direction", "hand_goal", "object_goal", "meta_world"):  # the last three are Meta-World's draws
        return
    for (low, high), values in zip(ranges, lists, strict=True):
        share = (values - low) / (high - low) * len(values)
        np.testing.assert_array_equal(np.floor(share), np.arange(len(values)))


@pytest.mark.parametrize(("sparse", "dense"), [("CheetahVelSparse", "CheetahVel"), ("PointGoalSparse", "PointGoal")])
def test_twins_share_reward_numbers_and_test_tasks(sparse, dense):
    one, other = family(sparse), family(dense)
    assert one.card.reward.model_copy(update={"kind": "dense"}) == other.card.reward
    for split in ("validation", "test", "ood"):
        np.testing.assert_array_equal(one.tasks(split), other.tasks(split))


@every_family
def test_sparse_reward_outside_tells_nothing_about_the_task(name):
    task_family = family(name)
    tasks = np.concatenate([task_family.tasks(split) for split in task_family.splits]).astype(np.float32)
    outcome = np.full((1, task_family.outcome_dim), 50.0, np.float32)
    if task_family.card.tasks.same_tasks:  # what moves against one direction moves in the other: standing still is outside of both
        outcome[:, 1 if task_family.card.goal.kind == "multi_task" else 0] = 0.0
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
    ('body = "point"', 'body = "piont"', r"unknown body 'piont' \(did you mean 'point'\?\); accepted: point, half_cheetah, hopper"),
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


MULTI = "CheetahMultiTask"
BAD_GOALS = [  # card, old, new, message
    ("CheetahDir", "same_tasks = true", "", r"task \[-1.0\] of 'validation' is also in 'train'; splits must be disjoint"),
    ("CheetahVel", "[tasks]", "[tasks]\nsame_tasks = true", r"key 'tasks.same_tasks': only directions may stand in several splits"),
    (MULTI, "same_tasks = true", "", r"is also in 'train'; splits must be disjoint"),
    ("CheetahMultiTaskSparse", "train = [", "same_tasks = true\ntrain = [", r"key 'tasks.same_tasks': only directions may stand"),
    (MULTI, "train = [", "train = [[9.0, 1.7],", r"task \[9.0, 1.7\] has no variant of that number; accepted: \[0..8, value\]"),
    (MULTI, "train = [", "train = [[0.5, 1.7],", r"task \[0.5, 1.7\] has no variant of that number"),
    (MULTI, "train = [", "train = [[2.0, 0.5],", r"task \[2.0, 0.5\] is no direction"),
    (MULTI, "train = [", "train = [[0.0, 4.5],", r"base classes must have as many tasks each, got \[21, 20, 20, 20, 20\]"),
    (MULTI, "base_class = 4", "base_class = 6", r"base classes must count from 0 without gaps, got \[0, 1, 2, 3, 6\]"),
    (MULTI, "high = 25.0", "high = 30.0", r"keys 'goal.low' and 'goal.high' must be those of all variants together"),
    (MULTI, 'quantity = "jump"', 'quantity = "hop"', r"key 'goal.variants.8.quantity'"),
    ("PointGoal", 'kind = "dense"', 'kind = "dense"\ncontact_cost = 1.0', r"key 'reward.contact_cost': body 'point' has no 'contact'"),
    ("PointGoal", "radius = 0.2", "radius = -0.2", r"key 'reward.radius': must be above 0 for goal kind 'planar_goal', got -0.2"),
    ("CheetahVel", "high = 3.0", 'high = 3.0\nnorm = "l1"', r"key 'goal.norm': only goal kind 'planar_goal' reads it, got kind 'velocity'"),
    ("CheetahVel", "high = 3.0", 'high = 3.0\nregion = "disc"', r"key 'goal.region': only goal kind 'planar_goal' reads it"),
]


@pytest.mark.parametrize(("card", "old", "new", "message"), BAD_GOALS)
def test_bad_goals_are_one_clear_line(tmp_path, card, old, new, message):
    with pytest.raises(CardError, match=message) as caught:
        family(_changed(tmp_path, old, new, card=card))
    assert "\n" not in str(caught.value)


def test_a_variant_without_tasks_is_an_error(tmp_path):
    """The original family misspelt a variant, whose tasks then never existed."""
    path = _changed(tmp_path, "train = [", "train = [[0.0, 1.0],", card="CheetahMultiTaskSparse")
    text = path.read_text()
    path.write_text(re.sub(r"\[1\.0, (-[\d.]+)\],?", "", text))
    with pytest.raises(CardError, match=r"key 'tasks.train': variant 'backward_velocity' has no task"):
        family(path)


def test_multi_task_classes_are_present_and_balanced():
    for name, variants, classes in (("CheetahMultiTaskSparse", 4, 4), (MULTI, 9, 5)):
        task_family = family(name)
        for split in ("train", "test"):
            tasks, labels = task_family.tasks(split), task_family.task_classes(split)
            assert set(tasks[:, 0]) == set(range(variants))
            assert labels is not None and labels.dtype == np.int64
            np.testing.assert_array_equal(np.bincount(labels), len(tasks) // classes)
        signs = task_family.tasks("train")
        assert (signs[signs[:, 0] == 1, 1] < 0).all()  # backward velocities
    assert family("CheetahVel").task_classes("train") is None


def test_multi_task_rewards_by_hand():
    sparse, dense = family("CheetahMultiTaskSparse"), family(MULTI)
    outcome = np.array([3.0, 2.0, 1.0, 7.0, 2.0])  # x position, forward, vertical and pitch velocity, effort
    tasks = np.array([[0.0, 2.05], [0.0, 2.2], [1.0, -2.0], [2.0, 3.4], [2.0, 3.6], [3.0, -3.0]])
    np.testing.assert_allclose(sparse.reward(outcome, tasks), [1.95 - 1, -3, -3, 1.6 - 1, -3, -3])
    assert sparse.success(outcome, tasks).tolist() == [True, False, False, True, False, False]
    tasks = np.array([[0.0, 4.0], [1.0, -4.0], [2.0, 1.0], [3.0, -1.0], [4.0, 6.0], [5.0, -6.0], [6.0, 10.0], [7.0, -10.0], [8.0, 2.0]])
    errors = [2 / 4, 6 / 4, -2, 2, 3 / 6, 9 / 6, 3 / 10, 17 / 10, 1 / 2]
    np.testing.assert_allclose(dense.error(outcome, tasks), errors)
    np.testing.assert_allclose(dense.reward(outcome, tasks), -np.array(errors) - 0.1)
    falling = np.array([3.0, 2.0, -2.2, 7.0, 2.0])  # a jump is vertical speed, up or down
    np.testing.assert_allclose(dense.error(falling, np.array([8.0, 2.0])), 0.1)


def test_an_impossible_task_value_is_refused():
    for name, task, message in (
        ("CheetahDir", [0.5], r"task \[0.5\] is no direction; accepted: \[-1.0\] and \[1.0\]"),
        (MULTI, [9.0, 1.0], r"task \[9.0, 1.0\] has no variant of that number"),
    ):
        with pytest.raises(CardError, match=message):
            family(name).make_vec(1).reset(options={"task": np.array([task])})


def _changed(folder, old, new, card="PointGoalSparse"):
    text = (register_folder("envs") / f"{card}.toml").read_text()
    assert old in text
    path = folder / "Changed.toml"
    path.write_text(text.replace(old, new, 1))
    return path
