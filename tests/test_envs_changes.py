"""Families whose task changes inside an episode: when and to what it does, and that the vector environment agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import dmrlad_bench
from dmrlad_bench.agents.interface import ChangingTrials, Problem
from dmrlad_bench.agents.relabel import Hindsight
from dmrlad_bench.agents.simple import RandomAgent
from dmrlad_bench.cards import CardError, register_folder
from dmrlad_bench.envs.family import family
from dmrlad_bench.envs.single import DMRLADEnv
from dmrlad_bench.envs.vector import DMRLADVectorEnv
from dmrlad_bench.harness.collect import Environments, roll_out

CHANGING = [name for name in dmrlad_bench.families() if family(name).tasks_change]
every_changing = pytest.mark.parametrize("name", CHANGING)


def quick(folder, name, horizon=60):
    """The family with changes so frequent that random actions see many."""
    card = family(name).card
    assert card.changes is not None
    lines = (register_folder("envs") / f"{card.name}.toml").read_text().split("\n")
    place = card.changes.kind == "place"
    swap = {"horizon": f"horizon = {horizon}", "every": f"every = {0.02 if place else 6.0}", "spread": f"spread = {0.03 if place else 4.0}"}
    path = folder / "Quick.toml"
    path.write_text("\n".join(swap.get(line.split(" = ")[0], line) for line in lines))
    return family(path)


def lived(env: DMRLADEnv, actions, seed, task: Any = None):
    """Tasks in force, places and outcomes of one episode; it ends where the body fell."""
    body, episodes = env._episodes._body, env._episodes
    _, info = env.reset(seed=seed, options={} if task is None else {"task": task})
    tasks, places, outcomes, rewards = [info["task"]], [body.place(episodes._state)[0]], [], []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        tasks.append(info["task"])
        places.append(body.place(episodes._state)[0])
        outcomes.append(info["outcome"])
        rewards.append(reward)
        if terminated or truncated:
            break
    np.testing.assert_array_equal(tasks[0], tasks[1])
    return np.array(tasks[1:]), np.array(places), np.array(outcomes), np.array(rewards)


def random_actions(solved, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, solved.action_dim)).astype(np.float32)


@every_changing
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_task_changes_where_it_should_and_only_there(tmp_path, name, split):
    """Independent reference: a loop over the episode that measures distances and steps itself."""
    solved = quick(tmp_path, name)
    rule = solved.card.changes
    assert rule is not None
    choices = solved.tasks(split).astype(np.float32)
    env, changes = DMRLADEnv(solved, split=split), 0
    for seed in range(4):
        tasks, places, outcomes, rewards = lived(env, random_actions(solved, solved.horizon, seed), seed)
        np.testing.assert_array_equal(solved.reward(outcomes, tasks), rewards)
        begun = 0
        for step in range(1, len(tasks)):  # the task of step `step` is decided by where step `step - 1` ended
            done = np.linalg.norm(places[step] - places[begun]) if rule.kind == "place" else step - begun
            if (tasks[step] != tasks[step - 1]).any():
                before = np.linalg.norm(places[step - 1] - places[begun]) if rule.kind == "place" else step - 1 - begun
                assert done >= rule.every and before < rule.every + rule.spread
                assert (tasks[step] == choices).all(axis=1).any()
                begun, changes = step, changes + 1
            else:
                assert done < rule.every + rule.spread
    assert changes >= 4


@every_changing
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("task_observable", [False, True])
def test_vector_equals_single_while_tasks_change(tmp_path, name, mode, task_observable):
    solved = quick(tmp_path, name, horizon=40)
    ours = DMRLADVectorEnv(3, solved, task_observable=task_observable, autoreset_mode=mode, threads=2)
    reference = SyncVectorEnv([lambda: DMRLADEnv(solved, task_observable=task_observable)] * 3, autoreset_mode=mode)
    actions = np.random.default_rng(0).uniform(-1, 1, (70, 3, solved.action_dim)).astype(np.float32)
    seen = set()
    for env in (ours, reference):
        env.reset(seed=4)
    for action in actions[: 40 if mode is AutoresetMode.DISABLED else 70]:
        one, other = ours.step(action), reference.step(action)
        over = one[2] | one[3]
        for mine, theirs in zip(one[:4], other[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)
        for key in ("task", "outcome", "success", "dense_reward", "sparse_reward"):
            assert (key in one[4]) == (key in other[4])
            if key in one[4]:
                np.testing.assert_array_equal(one[4][key], other[4][key])
        seen.update(task.tobytes() for task in one[4].get("task", ()))
        if mode is AutoresetMode.DISABLED and over.any():
            break  # Gymnasium's goes on stepping
    assert len(seen) >= 2
    ours.close()


@every_changing
def test_the_seed_fixes_the_sequence(tmp_path, name):
    solved = quick(tmp_path, name)
    env, actions = DMRLADEnv(solved), random_actions(solved, 40)
    first = lived(env, actions, 3)
    env.reset(seed=8)
    env.step(actions[0])
    for one, other in zip(first, lived(env, actions, 3), strict=True):
        np.testing.assert_array_equal(one, other)
    shorter = DMRLADVectorEnv(1, solved, max_episode_steps=5, autoreset_mode="SameStep")
    longer = DMRLADVectorEnv(1, solved, autoreset_mode="Disabled")
    shorter.reset(seed=3)
    longer.reset(seed=3)
    for action in actions[:5]:
        shorter.step(action[None])
    np.testing.assert_array_equal(shorter._episodes._state, (longer.reset(), longer._episodes._state)[1])  # as many draws an episode


@every_changing
def test_the_observable_task_is_the_one_of_the_next_step(tmp_path, name):
    solved = quick(tmp_path, name)
    env = DMRLADEnv(solved, task_observable=True)
    observation, _ = env.reset(seed=1)
    for action in random_actions(solved, 30):
        shown = observation[solved.observation_dim :]
        observation, _, terminated, _, info = env.step(action)
        np.testing.assert_array_equal(info["task"], shown)
        if terminated:
            break


def test_next_tasks_and_lengths_are_uniform(tmp_path):
    solved = quick(tmp_path, "CheetahVelNonStationary", horizon=4000)
    env = DMRLADEnv(solved)
    env.reset(seed=0, options={"task": 7})
    changes: Any = env._episodes._changes
    sequence = np.concatenate(([7], changes._sequence[0]))
    offsets = np.diff(sequence) % 100
    assert offsets.min() == 1 and offsets.max() == 99
    counts = np.bincount(offsets, minlength=100)[1:]
    assert ((counts - 4000 / 99) ** 2 / (4000 / 99)).sum() < 160  # expectation 98
    lengths = (changes._lengths[0] - 0.02) / 0.03
    assert lengths.min() >= 0 and lengths.max() <= 1
    np.testing.assert_allclose(np.histogram(lengths, 4, (0, 1))[0], 1000, atol=120)


@pytest.mark.parametrize("name", [name for name in CHANGING if family(name).relabelable])
def test_a_relabelled_sequence_is_what_would_have_been_lived(tmp_path, name):
    """The same seed and actions in an environment that begins with another task, which draws the same offsets."""
    solved = quick(tmp_path, name)
    tasks = torch.as_tensor(solved.tasks("train"), dtype=torch.float32)
    actions, env = random_actions(solved, solved.horizon), DMRLADEnv(solved)
    first, other = 0, len(tasks) - 1
    was, _, outcomes, _ = lived(env, actions, 2, task=first)
    would_be, _, _, rewards = lived(env, actions, 2, task=other)
    sequence = torch.as_tensor([(tasks.numpy() == task).all(axis=1).argmax() for task in was])
    hindsight = Hindsight(tasks, solved.reward)
    under = hindsight.beginning_with(torch.tensor([other]), sequence[None], torch.tensor([first]))
    np.testing.assert_array_equal(tasks[under[0]].numpy(), would_be)
    of_all = hindsight.rewards(torch.as_tensor(outcomes)[None], sequence[None], torch.tensor([first]))
    assert of_all.shape == (1, len(tasks), len(was))
    np.testing.assert_array_equal(of_all[0, other], rewards.astype(np.float32))


@every_changing
def test_roll_outs_record_the_sequence(tmp_path, name):
    solved = quick(tmp_path, name, horizon=20)
    environments = Environments(solved, False, 1)
    chosen = np.array([1, 0])
    sizes = (solved.observation_dim, solved.action_dim, solved.horizon, 2, solved.tasks("train"), solved.reward, solved.outcome_dim)
    agent = RandomAgent(Problem(*sizes, solved.reconstruction_dims, solved.relabelable), np.random.SeedSequence(0))
    generator = np.random.default_rng(0)
    rolled = roll_out(environments, agent, "train", chosen, episodes=2, generator=generator, deterministic=False, keep=True)
    trials = rolled.trials
    assert isinstance(trials, ChangingTrials)
    for row in range(2):
        lived_steps = slice(0, trials.length[row])
        in_force = solved.tasks("train")[trials.task_sequence[row]].astype(np.float32)
        np.testing.assert_array_equal(solved.reward(trials.outcome[row], in_force)[lived_steps], trials.reward[row, lived_steps])
        starts = np.flatnonzero(np.diff(trials.episode[row, lived_steps], prepend=-1))
        np.testing.assert_array_equal(trials.task_sequence[row, starts], chosen[row])
    environments.close()


def test_a_split_of_one_task_never_changes(tmp_path):
    solved = quick(tmp_path, "CheetahVelNonStationary")
    card = solved.card.model_copy(update={"tasks": solved.card.tasks.model_copy(update={"test": solved.card.tasks.test[:1]})})
    tasks, *_ = lived(DMRLADEnv(type(solved)(card), split="test"), random_actions(solved, 40), 0)
    assert len(np.unique(tasks)) == 1


def test_bad_cards_are_one_clear_line(tmp_path):
    text = (register_folder("envs") / "CheetahVelNonStationary.toml").read_text()
    cases = [
        ('kind = "place"', 'kind = "space"', "key 'changes.kind'"),
        ("every = 10.0", "every = 0.0", "key 'changes.every'"),
        ("spread = 1.0", "spread = -1.0", "key 'changes.spread'"),
        ("every = 10.0\n", "", "key 'changes.every' is missing"),
        ('body = "half_cheetah"', 'body = "point"', "'point'"),
    ]
    for old, new, message in cases:
        path = tmp_path / "Bad.toml"
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(CardError, match=message) as caught:
            family(path)
        assert "\n" not in str(caught.value)
