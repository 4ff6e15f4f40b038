"""Iterations in which some set is empty, or holds one: every agent must store, learn, act and go on.

Where rewards are sparse these are the normal case: no task is met for many iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recurrent_agents import recurrent_config
from toy_agents import transition_of
from toy_pearl import pearl_config
from toy_problem import filled_replay, generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.crossing import Crossing
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.relabel import Hindsight, hindsight_beliefs
from dmrlad_bench.cards.agent_config import AgentConfig

BY_STEP = {"crossed_share": 0.5, "crossed_targets": 0.5}
SHOWN: dict[str, Any] = {"inference": {"kind": "none"}, "actor_critic": {"critic": "scalar"}}
AGENTS: dict[str, Callable[[], AgentConfig]] = {
    "everything": lambda: small_config(
        inference={"window": 0},
        actor_critic={"belief_input": "mean_and_deviation", "bootstrap_belief": "next"},
        relabel={"copies": 3, "copies_by_gain": 2, "revisited": 2, "draw": "greedy", **BY_STEP},
        exploration={"stored_share": 0.5, "test_episodes": 1, "test_interval": 2},
    ),
    "window": lambda: small_config(relabel={"context": "window", "copies": 9}),
    "classes": lambda: small_config(inference={"classes": 3}, relabel={"normaliser_trials": 7}),
    "only crossed": lambda: small_config(relabel={"copies_by_gain": 1, "crossed_share": 1.0, "crossed_targets": 1.0}),
    "random": lambda: small_config(relabel={"kind": "random", "copies": 5}, exploration={"sampled_share": 1.0}),
    "none": lambda: small_config(relabel={"kind": "none"}, actor_critic={"critic": "scalar"}),
    "oracle": lambda: small_config(**SHOWN, relabel={"kind": "hindsight", "copies": 2, **BY_STEP}).model_copy(
        update={"task_observable": True}
    ),
    "oracle, copies": lambda: small_config(**SHOWN, relabel={"kind": "hindsight", "normaliser_trials": 7}).model_copy(
        update={"task_observable": True}
    ),
    "pearl": lambda: pearl_config(relabel={"kind": "none"}),
    "pearl-hfr": pearl_config,
    "rl2": recurrent_config,
    "rl2, sequences": lambda: recurrent_config(recurrent={"sequence": 3, "burn_in": 2}),
}


def never(outcome: Any, task: Any) -> Any:
    return (outcome[..., 0] - task[..., 0]) > math.inf


def silent(outcome: Any, task: Any) -> Any:
    return 0.0 * (outcome[..., 0] - task[..., 0]) - 1.0


def always(outcome: Any, task: Any) -> Any:
    return (outcome[..., 0] - task[..., 0]) < math.inf


def of_one_task(problem: Problem, seed: int) -> Trials:
    return random_trials(problem, 4, seed, task_index=np.full(4, len(problem.train_tasks) - 1))


def over_at_once(problem: Problem, seed: int) -> Trials:
    """Every episode ends by termination at its first step."""
    trials = random_trials(problem, 4, seed, length=np.full(4, problem.episodes_per_trial))
    trials.episode[:, : problem.episodes_per_trial] = np.arange(problem.episodes_per_trial)
    trials.terminated[:, : problem.episodes_per_trial] = True
    return trials


# what is empty or single -> the problem, and an iteration's trials
SETS: dict[str, tuple[Problem, Callable[[Problem, int], Trials]]] = {
    "no task met": (toy_problem(success=never, reward=silent), lambda problem, seed: random_trials(problem, 4, seed)),
    "every task met": (toy_problem(success=always), lambda problem, seed: random_trials(problem, 4, seed)),
    "one task visited": (toy_problem(success=never), of_one_task),
    "a single task": (toy_problem(train_tasks=np.array([[0.5]])), lambda problem, seed: random_trials(problem, 3, seed)),
    "a single trial": (toy_problem(success=never), lambda problem, seed: random_trials(problem, 1, seed)),
    "a single step": (
        toy_problem(horizon=1, episodes_per_trial=1, success=never),
        lambda problem, seed: random_trials(problem, 2, seed),
    ),
    "one task, one trial, one step": (
        toy_problem(horizon=1, episodes_per_trial=1, train_tasks=np.array([[0.5]]), success=never),
        lambda problem, seed: random_trials(problem, 1, seed),
    ),
    "over at once": (toy_problem(), over_at_once),
}


def shown(problem: Problem, config: AgentConfig) -> Problem:
    """The problem as an agent sees it that is shown the task."""
    if not config.task_observable:
        return problem
    return Problem(**{**vars(problem), "observation_dim": problem.observation_dim + problem.train_tasks.shape[1]})


@pytest.mark.parametrize("what", SETS)
@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("capacity", [60, 20])  # a ring of 20 is soon full of copies and newer trials
def test_learning_goes_on(name: str, what: str, capacity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmrlad_bench.agents.cemrl.VALIDATION_TARGETS", 16)
    config = AGENTS[name]()
    config = config.model_copy(update={"schedule": config.schedule.model_copy(update={"replay_trials": capacity})})
    problem, trials = SETS[what]
    problem = shown(problem, config)
    agent: Any = build_agent(config, problem, np.random.SeedSequence(0), "cpu")
    for iteration in range(1, 4):
        agent.begin_training_trial(2, iteration)
        for _ in range(problem.episodes_per_trial):
            agent.begin_episode()
            act(agent, problem, deterministic=False)
        metrics = agent.learn(trials(problem, iteration))
        assert metrics and all(math.isfinite(value) for value in metrics.values()), metrics
    scored = agent.fork(np.random.SeedSequence(1))
    scored.begin_trial(2)
    scored.begin_episode()
    act(scored, problem, deterministic=True)


def act(agent: Any, problem: Problem, deterministic: bool) -> None:
    action = agent.act(np.zeros((2, problem.observation_dim), np.float32), deterministic)
    assert np.isfinite(action).all() and action.shape == (2, problem.action_dim)
    transition = transition_of(0, 2)
    seen = np.zeros((2, problem.observation_dim))
    agent.observe(type(transition)(**{**vars(transition), "observation": seen, "next_observation": seen}))


def test_a_ring_of_copies_alone_can_be_crossed_with_nothing() -> None:
    problem = toy_problem()
    replay = filled_replay(problem, random_trials(problem, 5, 0))
    replay.data["copy"][:5] = True
    tasks = torch.as_tensor(problem.train_tasks, dtype=torch.float32)
    crossing = Crossing(Hindsight(tasks, problem.reward), always, replay, False, generator_of(0))
    inference = TaskInference(small_config().inference, 3, 2, 2, generator_of(0))
    crossing.foresee(inference, "trajectory", False)
    assert not crossing.possible


@pytest.mark.parametrize("context", ["window", "trajectory"])
def test_no_trials_have_no_beliefs(context: str) -> None:
    problem = toy_problem()
    replay = filled_replay(problem, random_trials(problem, 5, 0))
    inference = TaskInference(small_config(inference={"latent_dim": 3}).inference, 3, 2, 2, generator_of(0))
    nothing = torch.zeros(0, dtype=torch.int64)
    assert hindsight_beliefs(inference, replay, nothing, torch.zeros((0, 4, 10)), context).shape == (0, 4, 3)
