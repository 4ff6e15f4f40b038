"""Families whose tasks are physics: which numbers of a model a task multiplies, and what the motion is then."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

import dmrlad_bench
from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.bodies import MujocoBody
from dmrlad_bench.envs.body_kinds import BODIES
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.physics import BASES, MODELS_KEPT, ScaledModels
from dmrlad_bench.envs.single import DMRLADEnv

PHYSICS = [name for name in dmrlad_bench.families() if family(name).scaled]
REFERENCES = {"half_cheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}
every_physics = pytest.mark.parametrize("name", PHYSICS)


def changed_card(folder, card, old, new):
    text = (register_folder("envs") / f"{card}.toml").read_text()
    assert old in text
    path = folder / "Changed.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("name", [name for name, body in BODIES.items() if getattr(body, "physics_sizes", {})])
def test_sizes_are_those_of_the_model(name):
    body: Any = BODIES[name]()
    assert isinstance(body, MujocoBody)
    assert ScaledModels(body.simulator.model, tuple(BASES)).sizes == body.physics_sizes


@every_physics
def test_a_task_moves_as_gymnasiums_own_body_with_those_numbers(name):
    """Independent reference: Gymnasium's environment, its model's fields multiplied here, its warm start removed before every step."""
    solved = family(name)
    reference: Any = gymnasium.make(REFERENCES[solved.card.body], disable_env_checker=True).unwrapped
    task = solved.tasks("train")[3].astype(np.float32).astype(np.float64)
    model, start = reference.model, 0
    bodies, geoms = model.nbody - 1, model.ngeom
    joints = range(model.nv - model.nu, model.nv)  # the last ones are actuated, and only these are damped
    for number in range(bodies):
        model.body_mass[1 + number] *= task[number]
    start += bodies
    if len(solved.scaled) > 1:
        for number in range(bodies):
            for axis in range(3):
                model.body_inertia[1 + number, axis] *= task[start + number]
        start += bodies
        for number in range(geoms):
            for kind in range(3):
                model.geom_friction[number, kind] *= task[start + number]
        start += geoms
        for number, joint in enumerate(joints):
            model.dof_damping[joint] *= task[start + number]
        start += len(joints)
    assert start == len(task)
    simulator: Any = mujoco
    simulator.mj_setConst(model, reference.data)
    env = DMRLADEnv(solved)
    env.reset(seed=5, options={"task": 3})
    state = env._episodes._state[0]
    reference.reset(seed=0)
    reference.set_state(state[1 : 1 + model.nq], state[1 + model.nq :])
    generator = np.random.default_rng(0)
    for _ in range(100):
        action = generator.uniform(-1, 1, solved.action_dim).astype(np.float32)
        reference.data.qacc_warmstart[:] = 0
        expected = reference.step(action)[0]
        env_step = env.step(action)
        if solved.tasks_change and not np.array_equal(env_step[4]["task"], task.astype(np.float32)):
            break
        np.testing.assert_array_equal(env_step[0], expected)


@every_physics
def test_multipliers_of_one_are_the_body_as_it_is(name, tmp_path):
    solved = family(name)
    env = DMRLADEnv(solved)
    env.reset(seed=2, options={"task": np.ones(solved.task_dim)})
    body = solved.make_body()
    state = env._episodes._state
    action = np.random.default_rng(0).uniform(-1, 1, (20, solved.action_dim))
    for step in range(20):
        state = body.step(state, action[None, step])
        np.testing.assert_array_equal(env.step(action[step])[0], body.observe(state)[0])


@every_physics
def test_tasks_differ_in_their_motion(name):
    env = family(name).make_vec(4)
    env.reset(seed=[1, 1, 1, 1], options={"task": np.array([0, 1, 2, 0])})
    for action in np.random.default_rng(0).uniform(-1, 1, (10, env.family.action_dim)):
        observation = env.step(np.tile(action, (4, 1)))[0]
    np.testing.assert_array_equal(observation[0], observation[3])
    assert all(np.abs(observation[0] - observation[other]).max() > 1e-3 for other in (1, 2))


@every_physics
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_multiplier_covers_its_range_evenly(name, split):
    solved = family(name)
    body: Any = BODIES[solved.card.body]
    tasks, sizes = solved.tasks(split), body.physics_sizes
    bases = np.concatenate([np.full(sizes[parameter], {"damping": 1.3}.get(parameter, 1.5)) for parameter in solved.scaled])
    share = (np.log(tasks) / np.log(bases) + 3) / 6 * len(tasks)
    np.testing.assert_array_equal(np.sort(np.floor(share), axis=0), np.tile(np.arange(len(tasks))[:, None], (1, solved.task_dim)))


@every_physics
def test_relabelling_is_off(name):
    solved = family(name)
    assert solved.relabelable is False
    outcome = np.array([[1.5, 2.0], [-1.0, 0.5]], np.float32)
    np.testing.assert_allclose(solved.reward(outcome, solved.tasks("train")[0]), outcome[:, 0] + 1 - 1e-3 * outcome[:, 1], atol=1e-6)
    assert solved.success(outcome, solved.tasks("train")[0]).tolist() == [True, False]


@every_physics
@pytest.mark.parametrize("split", ["train", "test", "ood"])
def test_every_task_stays_finite(name, split):
    solved = family(name)
    count = len(solved.tasks(split))
    env = solved.make_vec(count, split=split)
    env.reset(seed=0, options={"task": np.arange(count)})
    generator = np.random.default_rng(0)
    for _ in range(100):
        observation, reward, *_ = env.step(generator.choice([-1.0, 1.0], (count, solved.action_dim)))
        assert np.isfinite(observation).all() and np.isfinite(reward).all()
    env.close()


def test_models_are_made_once_and_the_oldest_given_up():
    body: Any = BODIES["half_cheetah"]()
    models = ScaledModels(body.simulator.model, ("mass",))
    tasks = np.random.default_rng(0).uniform(0.5, 2, (3, 7)).astype(np.float32)
    first = models.of(tasks)
    assert models.of(tasks.copy()) is first
    assert models.of(tasks[::-1].copy())[0] is first[2]
    mass = body.simulator.model.body_mass.copy()
    for value in np.linspace(1, 2, MODELS_KEPT + 5):
        models.of(np.full((1, 7), value, np.float32))
    assert len(models._models) == MODELS_KEPT
    assert models.of(tasks)[0] is not first[0]
    np.testing.assert_array_equal(body.simulator.model.body_mass, mass)
    np.testing.assert_allclose(first[1].body_mass[1:], mass[1:] * tasks[1].astype(np.float64))
    np.testing.assert_array_equal(first[1].body_inertia, body.simulator.model.body_inertia)


def test_copies_step_the_same():
    env = family("CheetahRandMass").make_vec(2)
    env.reset(seed=0)
    env._episodes.step(np.ones((2, 6)))
    twin = copy.deepcopy(env._episodes)
    np.testing.assert_array_equal(env._episodes.step(np.ones((2, 6))).observation, twin.step(np.ones((2, 6))).observation)


def test_bad_input_is_one_clear_line(tmp_path):
    env = DMRLADEnv("CheetahRandMass")
    cases = [
        (
            lambda: env.reset(options={"task": np.array([1.0, 1, 1, 1, 1, 1, 0])}),
            "is no physics that a body can have",
        ),
        (lambda: family(changed_card(tmp_path, "CheetahRandMass", 'scaled = ["mass"]', "")), "key 'goal.scaled' is missing"),
        (lambda: family(changed_card(tmp_path, "CheetahVel", "high = 3.0", 'high = 3.0\nscaled = ["mass"]')), "only goal kind 'physics'"),
        (lambda: family(changed_card(tmp_path, "CheetahRandMass", '"half_cheetah"', '"ant"')), "physics of body 'ant' cannot be scaled"),
        (lambda: family(changed_card(tmp_path, "CheetahRandMass", 'scaled = ["mass"]', 'scaled = ["weight"]')), "goal.scaled"),
        (lambda: family(changed_card(tmp_path, "CheetahRandMass", "high = 3.0", "high = 2.0")), "lies outside the range"),
        (lambda: family(changed_card(tmp_path, "CheetahRandMass", "train = [\n    [", "train = [\n    [-")), "lies outside the range"),
    ]
    for fails, message in cases:
        with pytest.raises(CardError, match=message) as caught:
            fails()
        assert "\n" not in str(caught.value)
