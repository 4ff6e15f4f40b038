"""Agents that do not learn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmrlad_bench.agents.interface import Problem, Transition


class RandomAgent:
    """Uniform actions in [-1, 1]."""

    task_observable = False

    def __init__(self, problem: Problem, seed: np.random.SeedSequence) -> None:
        self.problem = problem
        self.generator = np.random.default_rng(seed)
        self.num_envs = 1

    def begin_trial(self, num_envs: int) -> None:
        """Nothing is remembered."""
        self.num_envs = num_envs

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Uniform actions, `(num_envs, action_dim)`; `deterministic` changes nothing, for there is no mean to act on."""
        return self.generator.uniform(-1.0, 1.0, (self.num_envs, self.problem.action_dim)).astype(np.float32)

    def observe(self, transition: Transition) -> None:
        """Nothing is learnt from what happens."""

    def fork(self, seed: np.random.SeedSequence) -> RandomAgent:
        """A random agent with a generator of its own."""
        return RandomAgent(self.problem, seed)


class StillAgent(RandomAgent):
    """Zero actions: what standing still is worth."""

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Zeros, `(num_envs, action_dim)`."""
        return np.zeros((self.num_envs, self.problem.action_dim), dtype=np.float32)

    def fork(self, seed: np.random.SeedSequence) -> StillAgent:
        """Another one that stands still."""
        return StillAgent(self.problem, seed)


class ScriptedAgent:
    """Acts by a given function of the observation, in which the task is shown."""

    task_observable = True

    def __init__(self, policy: Callable[[np.ndarray], np.ndarray]) -> None:
        """Args: `policy`, observations `(num_envs, observation_dim)` -> actions `(num_envs, action_dim)`; it must hold no state."""
        self.policy = policy

    def begin_trial(self, num_envs: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """The policy's actions, `(num_envs, action_dim)`; it has no noise to leave out."""
        return self.policy(observation)

    def observe(self, transition: Transition) -> None:
        """Nothing is learnt from what happens."""
