"""The legged bodies against Gymnasium's own environments, and the rewards of their families by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from dmrlad_bench.envs.body_kinds import BODIES
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.locomotion import Ant
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv
from dmrlad_bench.harness.agent import make_agent
from dmrlad_bench.harness.api import plan

PLAIN = {"include_cfrc_ext_in_observation": False}
REFERENCES = {  # family -> Gymnasium's environment with the same observations
    "HopperVelSparse": ("Hopper-v5", {}),
    "WalkerVelSparse": ("Walker2d-v5", {}),
    "AntVelSparse": ("Ant-v5", PLAIN),
    "AntDir": ("Ant-v5", PLAIN),
    "AntGoalSparse": ("Ant-v5", {**PLAIN, "exclude_current_positions_from_observation": False}),
    "CheetahGoalSparse": ("HalfCheetah-v5", {"exclude_current_positions_from_observation": False}),
}


def random_actions(name, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, family(name).action_dim)).astype(np.float32)


@pytest.mark.parametrize("name", REFERENCES)
def test_bodies_are_gymnasiums(name):
    """Independent reference: Gymnasium's own environment, its warm start removed before every step."""
    id, options = REFERENCES[name]
    reference: Any = gymnasium.make(id, disable_env_checker=True, **options).unwrapped
    env = DMRLADEnv(name)
    assert env.observation_space == reference.observation_space
    observation, _ = env.reset(seed=11)
    positions, velocities = reference.model.nq, reference.model.nv
    state = env._episodes._state[0]
    reference.reset(seed=0)
    reference.set_state(state[1 : 1 + positions], state[1 + positions : 1 + positions + velocities])
    np.testing.assert_array_equal(observation, reference._get_obs())
    ended = False
    for action in random_actions(name, 100):
        reference.data.qacc_warmstart[:] = 0
        before = reference.data.qpos.copy()
        expected, _, expected_end, _, expected_info = reference.step(action)
        observation, _, terminated, _, info = env.step(action)
        np.testing.assert_array_equal(observation, expected)
        assert terminated == (expected_end and env.family.card.terminates)
        ended |= terminated
        if env.family.card.goal.kind == "velocity":
            assert info["outcome"][0] == np.float32((reference.data.qpos[0] - before[0]) / reference.dt)
        if env.family.card.reward.contact_cost > 0:
            assert info["outcome"][-2] == np.float32(np.square(reference.contact_forces).sum())
            np.testing.assert_allclose(-env.family.card.reward.contact_cost * info["outcome"][-2], expected_info["reward_contact"])
    assert ended or not name.startswith(("Hopper", "Walker"))  # both fall under random actions


@pytest.mark.parametrize(("name", "id"), [("HopperVelSparse", "Hopper-v5"), ("WalkerVelSparse", "Walker2d-v5"), ("AntVelSparse", "Ant-v5")])
def test_starts_have_gymnasiums_noise(name, id):
    env, reference = DMRLADEnv(name), gymnasium.make(id, **(PLAIN if name.startswith("Ant") else {}))
    env.reset(seed=0)
    reference.reset(seed=1)
    starts, expected = (np.array([one.reset()[0] for _ in range(400)]) for one in (env, reference))
    np.testing.assert_allclose(starts.mean(axis=0), expected.mean(axis=0), atol=0.25 * expected.std(axis=0).max())
    np.testing.assert_allclose(starts.std(axis=0), expected.std(axis=0), rtol=0.2)


@pytest.mark.parametrize("name", ["hopper", "walker2d", "ant"])
def test_falling_rules_at_their_limits(name):
    """Gymnasium's `is_healthy` of the same states, near and beyond every limit."""
    id = {"hopper": "Hopper-v5", "walker2d": "Walker2d-v5", "ant": "Ant-v5"}[name]
    reference: Any = gymnasium.make(id).unwrapped
    reference.reset(seed=0)
    body = BODIES[name]()
    base = body.initial_state(np.random.default_rng(0))
    states = []
    for height in (0.1, 0.2, 0.7, 0.71, 0.8, 0.81, 1.0, 1.01, 1.9, 2.0, 2.1):
        for angle in (-1.0, -0.99, -0.2, 0.0, 0.19, 0.2, 1.0):
            for speed in (0.0, 99.0, -100.0, 101.0):
                state = base.copy()
                state[3 if name == "ant" else 2] = height
                if name != "ant":
                    state[3] = angle
                state[-1] = speed
                states.append(state)
    expected = []
    for state in states:
        reference.data.qpos[:] = state[1 : 1 + reference.model.nq]
        reference.data.qvel[:] = state[1 + reference.model.nq :]
        expected.append(not reference.is_healthy)
    assert body.terminated(np.array(states)).tolist() == expected
    assert {True, False} == set(expected)


def test_contact_forces_do_not_change_the_motion():
    """States stepped with contact forces are those of `mujoco.rollout` to the last bit, and no thread changes them."""
    plain, with_contact, threaded = Ant(threads=2), Ant(contact=True), Ant(threads=3, contact=True)
    generator = np.random.default_rng(0)
    starts = np.array([with_contact.initial_state(generator) for _ in range(7)])
    state, contact, other = starts[:, :-1], starts, starts.copy()
    for _ in range(30):
        action = generator.uniform(-1, 1, (7, 8))
        state, contact, other = plain.step(state, action), with_contact.step(contact, action), threaded.step(other, action)
        np.testing.assert_array_equal(contact[:, :-1], state)
        np.testing.assert_array_equal(contact, other)
    assert (contact[:, -1] > 0).any()
    for body in (plain, with_contact, threaded):
        body.close()


def test_the_contact_cost_is_in_the_outcome():
    task_family = family("AntVelSparse")
    outcome, task = np.array([[1.0, 4.0, 2.0], [2.0, 4.0, 2.0]]), np.array([1.2])
    np.testing.assert_allclose(task_family.sparse_reward(outcome, task), [2 - 0.2 - 1 - 0.002 + 1, -2 - 1 - 0.002 + 1])
    env = DMRLADVectorEnv(3, "AntVelSparse", threads=2)
    env.reset(seed=0)
    contacts = []
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 3, 8)):
        contacts.append(env.step(action)[4]["outcome"][:, 1])
    env.close()
    assert np.max(contacts) > 0


def test_hopper_and_walker_rewards_by_hand():
    for name in ("HopperVelSparse", "WalkerVelSparse"):
        outcome = np.array([[1.0, 2.0], [1.05, 2.0], [1.11, 2.0]])
        np.testing.assert_allclose(family(name).reward(outcome, np.array([1.0])), [2 + 3 - 0.002, 1.95 + 3 - 0.002, -2 + 3 - 0.002])


def test_goal_rewards_by_hand():
    cheetah = family("CheetahGoalSparse")
    np.testing.assert_allclose(cheetah.reward(np.array([[2.0, 1.0], [2.6, 1.0]]), np.array([2.4])), [2 - 0.4 - 0.05, 2 - 0.2 - 0.05])
    assert cheetah.reward(np.array([5.0, 0.0]), np.array([2.4])) == -2
    ant, task = family("AntGoalSparse"), np.array([0.0, 2.0])
    outcome = np.array([[0.3, 1.6, 2.0], [0.5, 1.6, 2.0], [0.0, 0.0, 0.0]])  # L1: 0.7, 0.9, 2
    np.testing.assert_allclose(ant.reward(outcome, task), [4 - 0.7 - 0.01 + 0.05, -0.01 + 0.05, 0.05])
    assert ant.success(outcome, task).tolist() == [True, False, False]
    with_contact = np.insert(outcome, 2, 4.0, axis=1)
    np.testing.assert_allclose(family("AntGoal").reward(with_contact, task), [-0.7 - 0.2 - 0.002, -0.9 - 0.2 - 0.002, -2.0 - 0.002])


def test_direction_rewards_by_hand():
    outcome, task = np.array([[1.5, 2.0], [-1.5, 2.0], [0.4, 0.0]]), np.array([-1.0])
    cheetah = family("CheetahDir")
    np.testing.assert_allclose(cheetah.reward(outcome, task), [-1.6, 1.4, -0.4])
    assert cheetah.success(outcome, task).tolist() == [False, True, False]
    assert cheetah.success(outcome, -task).tolist() == [True, False, False]
    with_contact = np.insert(outcome, 1, 4.0, axis=1)
    np.testing.assert_allclose(family("AntDir").reward(with_contact, task), [-1.5 - 0.002, 1.5 - 0.002, 0.6 - 0.002])


def test_running_forward_as_an_ant_is_gymnasiums_reward():
    """Ant-v5 pays for its velocity along x plus 1, minus the two costs, as long as it stands: the forward task of AntDir.

    Gymnasium reads positions before the last of five simulator steps moves the body, hence the tolerance.
    """
    reference: Any = gymnasium.make("Ant-v5", disable_env_checker=True, **PLAIN).unwrapped
    env = DMRLADEnv("AntDir", task=[1.0])
    env.reset(seed=11)
    state = env._episodes._state[0]
    reference.reset(seed=0)
    reference.set_state(state[1:16], state[16:30])
    costs = []
    for action in random_actions("AntDir", 30):
        reference.data.qacc_warmstart[:] = 0
        _, expected, _, _, terms = reference.step(action)
        _, reward, _, _, info = env.step(action)
        np.testing.assert_allclose(reward - info["outcome"][0], expected - terms["x_velocity"], rtol=1e-5)
        assert abs(reward - expected) < 0.5
        costs.append(-terms["reward_contact"])
    assert max(costs) > 0


def test_an_ant_that_fell_goes_on_where_the_card_says_so():
    for name, ends in (("AntGoal", False), ("AntGoalSparse", True)):
        env = DMRLADEnv(name)
        env.reset(seed=0)
        env._episodes._state[0, 3] = 1.5
        assert env.step(np.zeros(8))[2] is ends


def test_the_learner_gets_the_base_classes(monkeypatch, tmp_path):
    problems = []
    monkeypatch.setattr("dmrlad_bench.agents.build.build_agent", lambda config, problem, seed, device: problems.append(problem))
    for name in ("CheetahMultiTaskSparse", "HopperVelSparse"):
        config, _ = plan("dmrlad", name, budget="smoke", out=tmp_path)
        make_agent(config, family(name))
    np.testing.assert_array_equal(np.bincount(problems[0].task_classes), [15, 15, 15, 15])
    assert problems[1].task_classes is None
