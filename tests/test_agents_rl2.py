"""The recurrent agent: memory while acting, saving, what its card's keys do, a task that only memory can solve, and whole runs."""

from __future__ import annotations

import copy
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_agents import PROBLEM, recurrent_agent
from toy_problem import random_trials, toy_problem

from dmrlad_bench.agents.interface import Transition, Trials
from dmrlad_bench.agents.rl2 import Rl2
from dmrlad_bench.agents.sequences import read_sequences
from dmrlad_bench.cards.agent_sections import ActorCritic, Exploration, Recurrent, Schedule
from dmrlad_bench.cli import main

STORE_ONLY = {"policy_updates": 0}


def played(agent: Rl2, ends: list[list[int]], seed: int = 0) -> tuple[Trials, np.ndarray, np.ndarray]:
    """Two episodes side by side that end after `ends[environment][episode]` steps; the deterministic agent acts all the while.

    Returns:
        The trials without gaps, and for each of their steps the hidden state and the action.
    """
    count, drawn = len(ends), np.random.default_rng(seed)
    trials = random_trials(PROBLEM, count, seed, length=np.zeros(count))
    hidden = np.zeros((*trials.reward.shape, agent.recurrent.width))
    agent.begin_trial(count)
    for episode in range(2):
        agent.begin_episode()
        active = np.ones(count, dtype=bool)
        for step in range(max(row[episode] for row in ends)):
            seen, following = drawn.normal(size=(2, count, 3)).astype(np.float32)
            action = agent.act(seen, True)
            reward = drawn.normal(size=count).astype(np.float32)
            over = np.array([step + 1 >= row[episode] for row in ends])
            by_termination = over & (np.arange(count) == 1)
            agent.observe(Transition(seen, action, reward, following, by_termination, over & ~by_termination, active))
            for row in np.flatnonzero(active):
                at = (row, trials.length[row])
                trials.observation[at], trials.next_observation[at], trials.action[at] = seen[row], following[row], action[row]
                trials.reward[at], trials.terminated[at], trials.episode[at] = reward[row], by_termination[row], episode
                hidden[at] = agent.hidden[row]
                trials.length[row] += 1
            active = active & ~over
    return trials, hidden, np.arange(trials.reward.shape[1]) < trials.length[:, None]


def test_acting_is_the_unrolled_sequence_of_training() -> None:
    """The same hidden states and actions, over episode boundaries, in rows that waited for others, and in cut-out sequences."""
    agent = recurrent_agent(schedule=STORE_ONLY)
    agent.learn(random_trials(PROBLEM, 8, 1))  # statistics to normalise by
    statistics = copy.deepcopy(agent.replay.statistics.state_dict())
    trials, hidden, lived = played(agent, [[5, 5], [2, 4], [4, 1]])
    agent.learn(trials)
    agent.replay.statistics.load_state_dict(statistics)
    rows, memory = torch.tensor([8, 9, 10]), agent.learner.actor.memory
    batch = read_sequences(agent.replay, rows, torch.zeros(3, dtype=torch.int64), 10, Recurrent())
    with torch.no_grad():
        states = memory(batch.inputs[:, :-1], memory.blank(3))
        actions = agent.learner.actor.policy.mode(states)
    assert (batch.valid.numpy() == lived).all()
    np.testing.assert_allclose(states[..., : memory.width].numpy()[lived], hidden[lived], atol=1e-6)
    np.testing.assert_allclose(actions.numpy()[lived], trials.action[lived], atol=1e-6)
    cut = read_sequences(agent.replay, rows, torch.tensor([4, 3, 3]), 2, Recurrent(sequence=2, burn_in=5))
    with torch.no_grad():
        states = memory(cut.inputs[:, :-1], memory.after(cut.burn_in, cut.burned))
    for row, start in enumerate([4, 3, 3]):
        np.testing.assert_allclose(states[row, :2, : memory.width], hidden[row, start : start + 2], atol=1e-6)


def test_a_trial_begins_with_a_blank_memory_and_an_episode_does_not() -> None:
    agent = recurrent_agent()
    agent.learn(random_trials(PROBLEM, 8, 1))
    seen = np.full((3, 3), 0.3)

    def first_action() -> np.ndarray:
        agent.begin_episode()
        return agent.act(seen, True)

    agent.begin_trial(3)
    assert not agent.hidden.any()
    blank = first_action()
    played(agent, [[5, 5], [2, 4], [4, 1]])
    assert agent.hidden.abs().min(-1).values.gt(0).all()
    assert (first_action() != blank).all()
    agent.begin_trial(3)
    assert not agent.hidden.any()
    np.testing.assert_array_equal(first_action(), blank)


# ---- saving -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sections", [{}, {"recurrent": {"sequence": 4, "burn_in": 2}, "actor_critic": {"learning_rate_end": 1e-5}}])
def test_a_restored_agent_acts_and_learns_the_same(sections: dict[str, Any]) -> None:
    small = {**sections, "schedule": {"replay_trials": 20}, "exploration": {"initial": "coloured", "initial_iterations": 9}}
    first, second = recurrent_agent(0, **small), recurrent_agent(1, **small)
    shards = []
    for seed in range(3):  # 8 trials each; the ring of 20 wraps
        first.learn(random_trials(PROBLEM, 8, seed))
        shards.append(copy.deepcopy(first.new_replay_shard()))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.load_replay_shards(shards)
    assert fingerprint(first) == fingerprint(second)
    assert second.gradient_updates == first.gradient_updates > 0


def test_a_fork_disturbs_nothing() -> None:
    agent, undisturbed = recurrent_agent(), recurrent_agent()
    for entry in (agent, undisturbed):
        entry.learn(random_trials(PROBLEM, 8, 0))
        entry.begin_trial(3)
        entry.act(np.zeros((3, 3)), False)
    fork = agent.fork(np.random.SeedSequence(5))
    played(fork, [[5, 5], [2, 4]])
    nothing = np.zeros(3, dtype=bool)
    for _ in range(3):
        for entry in (agent, undisturbed):
            entry.observe(Transition(np.zeros((3, 3)), np.ones((3, 2)), np.ones(3), np.zeros((3, 3)), nothing, nothing, ~nothing))
        np.testing.assert_array_equal(agent.act(np.zeros((3, 3)), False), undisturbed.act(np.zeros((3, 3)), False))
    assert agent.learn(random_trials(PROBLEM, 8, 1)) == undisturbed.learn(random_trials(PROBLEM, 8, 1))


# ---- every key does something -------------------------------------------------------------------------------------------

NOISE = {"exploration.initial": "coloured"}
CUT = {"recurrent.sequence": 4}
# key -> (another value, what else must be set for it to matter)
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "recurrent.embedding": (5, {}),
    "recurrent.width": (6, {}),
    "recurrent.sequence": (4, {}),
    "recurrent.burn_in": (3, CUT),
    "recurrent.bootstrap": ("episode", {}),
    "actor_critic.hidden": ((9,), {}),
    "actor_critic.temperature": ("fixed", {}),
    "actor_critic.initial_temperature": (0.1, {}),
    "actor_critic.temperature_learning_rate": (0.1, {}),
    "actor_critic.target_entropy_factor": (9.0, {"schedule.policy_updates": 12, "actor_critic.temperature_learning_rate": 0.1}),
    "actor_critic.discount": (0.5, {}),
    "actor_critic.polyak": (0.5, {}),
    "actor_critic.learning_rate": (1e-2, {}),
    "actor_critic.learning_rate_end": (1e-5, {"schedule.iterations": 2}),
    "actor_critic.batch_size": (3, {}),
    "exploration.initial": ("coloured", {}),
    "exploration.initial_iterations": (2, NOISE),
    "exploration.colour_low": (1.5, NOISE),
    "exploration.colour_high": (0.5, NOISE),
    "exploration.constant_share": (1.0, NOISE),
    "exploration.coloured_share": (1.0, {}),
    "exploration.policy_colour": (1.0, {}),
    "schedule.policy_updates": (2, {}),
    "schedule.replay_trials": (10, {}),
}
SECTIONS = {"recurrent": Recurrent, "actor_critic": ActorCritic, "exploration": Exploration, "schedule": Schedule}


def test_the_table_covers_the_section() -> None:
    assert {f"recurrent.{name}" for name in Recurrent.model_fields} == {key for key in CHANGES if key.startswith("recurrent.")}
    for key in CHANGES:
        section, name = key.split(".")
        assert name in SECTIONS[section].model_fields


def fingerprint(agent: Rl2) -> tuple[float, ...]:
    """Numbers that any difference in two iterations of acting and learning shows in."""
    drawn, nothing = np.random.default_rng(0), np.zeros(3, dtype=bool)
    numbers: list[float] = []
    for iteration in (1, 2):
        agent.begin_training_trial(3, iteration)
        for _ in range(2):
            agent.begin_episode()
            for _ in range(PROBLEM.horizon):
                seen, following = drawn.normal(size=(2, 3, 3))
                action = agent.act(seen, False)
                agent.observe(Transition(seen, action, drawn.normal(size=3), following, nothing, nothing, ~nothing))
                numbers.extend(action.ravel().tolist())
        numbers.extend(agent.learn(random_trials(PROBLEM, 8, iteration)).values())
    numbers.extend([agent.replay.size, agent.gradient_updates])
    for value in [*agent.learner.actor.parameters(), *agent.learner.target_critic.parameters()]:
        numbers.append(float(value.detach().double().abs().sum()))
    return tuple(numbers)


def agent_with(settings: dict[str, Any]) -> Rl2:
    sections: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return recurrent_agent(0, PROBLEM, **sections)


@cache
def baseline_of(settings: tuple[tuple[str, Any], ...]) -> tuple[float, ...]:
    return fingerprint(agent_with(dict(settings)))


@pytest.mark.parametrize("key", CHANGES)
def test_the_key_changes_what_the_agent_does(key: str) -> None:
    value, context = CHANGES[key]
    assert baseline_of(tuple(context.items())) != fingerprint(agent_with({**context, key: value}))


def test_the_same_card_gives_the_same_fingerprint() -> None:
    assert fingerprint(agent_with({})) == fingerprint(agent_with({}))


# ---- what only memory can do ----------------------------------------------------------------------------------------------

TARGETS = np.array([[-0.7], [0.7]])
RIDDLE = toy_problem(
    observation_dim=1, action_dim=1, horizon=2, train_tasks=TARGETS, reward=lambda outcome, task: outcome[..., 0] * task[..., 0]
)


def riddle(agent: Rl2, task_index: np.ndarray, iteration: int | None) -> Trials:
    """Two episodes of two steps in front of an observation that says nothing.

    The very first reward tells the task, whatever was done. The second episode pays 1 - (a - target)^2; its first step must know.
    """
    count, target = len(task_index), TARGETS[task_index, 0]
    trials = random_trials(RIDDLE, count, 0, task_index=task_index)
    for part in (trials.observation, trials.next_observation):
        part[...] = 0.0
    trials.terminated[...] = False
    if iteration is None:
        agent.begin_trial(count)
    else:
        agent.begin_training_trial(count, iteration)
    still, nothing = np.zeros((count, 1), dtype=np.float32), np.zeros(count, dtype=bool)
    for step in range(4):
        if step % 2 == 0:
            agent.begin_episode()
        action = agent.act(still, iteration is None)
        reward = (target, np.zeros(count))[step] if step < 2 else 1 - (action[:, 0] - target) ** 2
        trials.action[:, step], trials.reward[:, step] = action, reward
        agent.observe(Transition(still, action, reward, still, nothing, nothing | (step % 2 == 1), ~nothing))
    return trials


@pytest.mark.parametrize("recurrent", [{"sequence": 0}, {"sequence": 2, "burn_in": 2, "bootstrap": "episode"}])
def test_a_reward_seen_once_is_remembered_in_the_next_episode(recurrent: dict[str, Any]) -> None:
    """Who does not remember earns at most 1 - 0.7^2 = 0.51 over both tasks at the second episode's first step."""
    agent = recurrent_agent(
        problem=RIDDLE,
        recurrent={"embedding": 16, "width": 16, **recurrent},
        actor_critic={
            "hidden": (16,), "batch_size": 32, "learning_rate": 1e-2, "polyak": 0.1, "discount": 0.3,
            "temperature": "fixed", "initial_temperature": 0.05,
        },
        exploration={"initial": "coloured", "colour_high": 0.0},
        schedule={"policy_updates": 80, "replay_trials": 500},
    )  # fmt: skip
    for iteration in range(1, 5):
        agent.learn(riddle(agent, np.arange(32) % 2, iteration))
    assert riddle(agent, np.array([0, 1]), None).reward[:, 2].min() > 0.85


# ---- whole runs ---------------------------------------------------------------------------------------------------------


def run(folder: Path, *more: str) -> int:
    """`dmrlad-bench run` in this process; its exit code."""
    arguments = ["run", "--agent", "rl2", "--env", "PointGoalSparse", "--budget", "smoke", "--device", "cpu", "--threads", "1", "--quiet"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--out", str(folder), *more])
    return int(caught.value.code or 0)


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads(next(folder.rglob("result.json")).read_text())


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in its third iteration and resumed: the same scores, curve and updates as the run that was left alone."""
    learn = Rl2.learn

    def stopped(agent: Rl2, trials: Trials) -> dict[str, float]:
        if agent.gradient_updates >= 20:
            raise KeyboardInterrupt
        return learn(agent, trials)

    assert run(tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Rl2, "learn", stopped)
        assert run(tmp_path / "broken") == 130
    assert run(tmp_path / "broken", "--resume") == 0
    whole, broken = (result_of(tmp_path / name) for name in ("whole", "broken"))
    assert whole["gradient_updates"] == 30
    for key in ("final", "environment_steps", "gradient_updates", "agent"):
        assert whole[key] == broken[key]
    assert [point["scores"] for point in whole["curve"]] == [point["scores"] for point in broken["curve"]]
    config = tomllib.loads(next((tmp_path / "whole").rglob("config.toml")).read_text())
    assert config["agent"]["recurrent"]["width"] == 8 and "pearl" not in config["agent"]
