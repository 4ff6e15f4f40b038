"""Agents on the toy task family, what they collect, and a short life to compare them by."""

from __future__ import annotations

from typing import Any

import numpy as np
from toy_problem import random_trials, small_config, toy_problem

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Problem, Transition, Trials

PROBLEM = toy_problem()
STORE_ONLY = {"reconstruction_updates": 0, "policy_updates": 0}


def agent_of(seed: int = 0, problem: Problem = PROBLEM, **sections: dict[str, Any]) -> Cemrl:
    agent = build_agent(small_config(**sections), problem, np.random.SeedSequence(seed), "cpu")
    assert isinstance(agent, Cemrl)
    return agent


def trials_of(seed: int, count: int = 8) -> Trials:
    return random_trials(PROBLEM, count, seed, length=np.resize([10, 4, 7, 9], count))


def transition_of(seed: int, num_envs: int, active: np.ndarray | None = None) -> Transition:
    drawn = np.random.default_rng(seed)
    nothing = np.zeros(num_envs, dtype=bool)
    observation, following = drawn.normal(size=(2, num_envs, 3))
    active = np.ones(num_envs, dtype=bool) if active is None else active
    return Transition(observation, drawn.uniform(-1, 1, (num_envs, 2)), drawn.normal(size=num_envs), following, nothing, nothing, active)


def lived(agent: Cemrl, deterministic: bool = False, steps: int = 4) -> np.ndarray:
    """Actions `(steps, 3, 2)` of one trial in which three environments always report the same."""
    agent.begin_trial(3)
    agent.begin_episode()
    actions = []
    for step in range(steps):
        actions.append(agent.act(np.full((3, 3), 0.1 * step), deterministic))
        agent.observe(transition_of(step, 3))
    return np.stack(actions)
