"""The sparse Sawyer families, against Meta-World's own environments: observations, success, resets, goals, scripted policies."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from dmrlad_bench.agents.simple import ScriptedAgent
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.sawyer import OBJECT_HIGH, OBJECT_LOW
from dmrlad_bench.envs.scripted import scripted_policy
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.harness.api import evaluate
from dmrlad_bench.harness.collect import Environments, roll_out

SAWYER = {"SawyerReachSparse": "reach-v3", "SawyerPushSparse": "push-v3", "SawyerPickPlaceSparse": "pick-place-v3"}
every_sawyer = pytest.mark.parametrize(("name", "own_name"), SAWYER.items(), ids=list(SAWYER))


def of_metaworld(own_name: str, start: np.ndarray, goal: np.ndarray) -> Any:
    """Meta-World's environment, the object's start (x, y, z) and the goal given."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.types import Task

    environment: Any = ALL_V3_ENVIRONMENTS[own_name]()
    data = {"rand_vec": np.concatenate((start, goal)), "env_cls": type(environment), "partially_observable": True}
    environment.set_task(Task(own_name, pickle.dumps(data)))
    return environment


def action_sources(name: str) -> dict[str, Any]:
    """Scripted actions with the goal shown, and random ones that hold for a while, so that the hand gets somewhere."""
    generator = np.random.default_rng(3)
    held = np.repeat(generator.uniform(-1, 1, (10, 1, 4)), 15, axis=0)
    policy = scripted_policy(family(name))
    return {"scripted": lambda observation, step: policy(observation), "random": lambda observation, step: held[step]}


@every_sawyer
@pytest.mark.parametrize("kind", ["scripted", "random"])
def test_trajectories_are_metaworlds_to_the_last_bit(name, own_name, kind):
    """Warm starts are removed before every step of the reference, as `mujoco.rollout` starts without."""
    env = DMRLADEnv(name, split="test", task=1, task_observable=True)
    observation, info = env.reset(seed=4)
    act = action_sources(name)[kind]
    reference = of_metaworld(own_name, observation[4:7], info["task"].astype(np.float64))
    expected, _ = reference.reset()
    np.testing.assert_array_equal(observation[:39], expected)
    np.testing.assert_allclose(info["task"], reference._target_pos, atol=1e-8)
    succeeded = []
    for step in range(env.family.horizon):
        action = act(observation[None], step)[0].astype(np.float64)
        reference.data.qacc_warmstart[:] = 0
        expected, _, _, _, expected_info = reference.step(action)
        observation, reward, _, _, info = env.step(action)
        np.testing.assert_allclose(observation[:39], expected, rtol=0, atol=1e-15)  # sums of squares in another order
        assert info["success"] == bool(expected_info["success"]) and reward == (0.0 if info["success"] else -1.0)
        fingertips = reference.tcp_center if own_name == "reach-v3" else reference.data.body("obj").xpos
        np.testing.assert_array_equal(info["outcome"][:3], fingertips.astype(np.float32))
        succeeded.append(info["success"])
    assert kind == "random" or (any(succeeded) and not all(succeeded))


@every_sawyer
def test_metaworlds_own_warm_start_changes_next_to_nothing(name, own_name):
    """But for the puck that nobody touches in reach: it settles on the table by contacts, which magnify the last digit."""
    env = DMRLADEnv(name, split="test", task=1, task_observable=True)
    observation, info = env.reset(seed=4)
    reference = of_metaworld(own_name, observation[4:7], info["task"].astype(np.float64))
    reference.reset()
    act, farthest = action_sources(name)["scripted"], np.zeros(18)
    for step in range(env.family.horizon):
        action = act(observation[None], step)[0].astype(np.float64)
        expected, _, _, _, expected_info = reference.step(action)
        observation, _, _, _, info = env.step(action)
        assert info["success"] == bool(expected_info["success"])
        farthest = np.maximum(farthest, np.abs(observation[:18] - expected[:18]))
    assert farthest[:4].max() < 1e-6
    assert farthest[4:7].max() < (1e-3 if name == "SawyerReachSparse" else 1e-6)


@every_sawyer
def test_scripted_policies_succeed_in_nine_tasks_of_ten(name, own_name):
    solved = family(name)
    environments = Environments(solved, True, 2)
    agent = ScriptedAgent(scripted_policy(solved))
    for split in ("test", "ood"):
        task_index, generator = np.arange(len(solved.tasks(split))), np.random.default_rng(0)
        rolled = roll_out(environments, agent, split, task_index, episodes=1, generator=generator, deterministic=True)
        assert rolled.success.mean() >= 0.9
    environments.close()


@every_sawyer
def test_goals_are_metaworlds(name, own_name):
    """The cards hold numbers; that they are Meta-World's draws is seen here, by drawing again."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    space: Any = ALL_V3_ENVIRONMENTS[own_name]()._random_reset_space
    solved, height = family(name), own_name == "push-v3"
    for split, seed in (("train", 1), ("test", 2)):
        generator, drawn = np.random.RandomState(seed), []
        while len(drawn) < 50:  # 50 resets of two draws each, where draws too close to the start are repeated
            pair = [_kept(generator, space) for _ in range(2)]
            drawn.append(pair[1])
        expected = np.array(drawn)[: len(solved.tasks(split)), 3:]
        np.testing.assert_allclose(solved.tasks(split)[:, : 2 if height else 3], expected[:, : 2 if height else 3], atol=5.1e-5)


def _kept(generator: np.random.RandomState, space: Any) -> np.ndarray:
    while True:
        drawn = generator.uniform(space.low, space.high, size=space.low.size)
        if np.linalg.norm(drawn[:2] - drawn[3:5]) >= 0.15:
            return drawn


@every_sawyer
def test_where_the_object_starts_does_not_tell_the_goal(name, own_name):
    env = DMRLADEnv(name)
    env.reset(seed=0)
    starts = np.array([env.reset()[0][4:6] for _ in range(100)])
    assert (starts >= OBJECT_LOW).all() and (starts <= OBJECT_HIGH).all()
    assert (np.ptp(starts, axis=0) > 0.9 * (OBJECT_HIGH - OBJECT_LOW)).all()
    goals = np.concatenate([env.family.tasks(split) for split in env.family.splits])
    nearest = np.linalg.norm(starts[:, None] - goals[None, :, :2], axis=2).min()
    assert nearest >= 0.15  # Meta-World's least distance


def test_a_scripted_policy_is_for_sawyers_only():
    with pytest.raises(CardError, match="there is no scripted policy for body 'point'; accepted: families on sawyer_reach"):
        scripted_policy(family("PointGoal"))


def test_the_scripted_agent_is_scored_like_any_other():
    scores = evaluate(ScriptedAgent(scripted_policy(family("SawyerReachSparse"))), "SawyerReachSparse", episodes=1, threads=1)
    assert scores.success.all() and scores.returns.mean() > -60


def test_metaworld_is_not_imported_for_native_bodies():
    script = (
        "import sys, gymnasium, dmrlad_bench; gymnasium.make('DMRLAD/SawyerPushSparse-v0').reset(seed=0); print('metaworld' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@every_sawyer
def test_sparse_reward_is_the_same_wherever_it_fails_or_succeeds(name, own_name):
    solved = family(name)
    radius, task = solved.card.reward.radius, solved.tasks("train")[0]
    outcome = np.append(task, 1.0) + np.array([[0, 0, 0, 0], [radius - 1e-4, 0, 0, 0], [0, 0, -radius - 1e-4, 0], [1, 1, 1, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solved.reward(outcome, task).tolist() == [0.0, 0.0, -1.0, -1.0]
