"""A learner without networks: its state depends on every transition, every draw and every update, so nothing can go missing unseen."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmrlad_bench.agents.interface import Diverged, Metrics, Problem, Transition, Trials


class CountingAgent:
    """Acts at random around a mean that learning moves; keeps every reward in its replay.

    Args:
        problem: sizes of the family.
        seed: source of the agent's randomness.
        diverge_at: iteration in which `learn` raises `Diverged`; 0 = never.
    """

    task_observable = False

    def __init__(self, problem: Problem, seed: np.random.SeedSequence, diverge_at: int = 0) -> None:
        self.problem, self.diverge_at = problem, diverge_at
        self.generator = np.random.default_rng(seed)
        self.mean = np.zeros(problem.action_dim)
        self.replay: list[np.ndarray] = []
        self.gradient_updates = 0
        self.phase_seconds = {"improve": 0.0}
        self.calls: list[str] = []
        self.num_envs = 0

    def begin_trial(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.calls.append("begin_trial")

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        self.num_envs = num_envs
        self.calls.append(f"begin_training_trial {iteration}")

    def begin_episode(self) -> None:
        self.calls.append("begin_episode")

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        noise = 0.0 if deterministic else self.generator.normal(size=(self.num_envs, self.problem.action_dim))
        return np.clip(np.broadcast_to(self.mean, (self.num_envs, self.problem.action_dim)) + noise, -1.0, 1.0)

    def observe(self, transition: Transition) -> None:
        self.calls.append("observe")

    def learn(self, trials: Trials) -> Metrics:
        if len(self.replay) + 1 == self.diverge_at:
            raise Diverged("the critic loss is nan at policy update 7")
        self.replay.append(trials.reward.sum(axis=1))
        drawn = self.replay[self.generator.integers(len(self.replay))]
        self.mean = np.tanh(self.mean + 0.01 * drawn.mean() + 0.01 * self.generator.normal(size=self.mean.shape))
        self.gradient_updates += 3
        self.phase_seconds["improve"] += 0.5
        return {"critic": float(drawn.std())}

    def fork(self, seed: np.random.SeedSequence) -> CountingAgent:
        forked = CountingAgent(self.problem, seed)
        forked.mean = self.mean
        return forked

    def new_replay_shard(self) -> dict[str, np.ndarray]:
        return {"reward": self.replay[-1]}

    def load_replay_shards(self, shards: Any) -> None:
        self.replay = [shard["reward"] for shard in shards]

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "generator": self.generator.bit_generator.state, "updates": self.gradient_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.gradient_updates = state["mean"], state["updates"]
        self.generator.bit_generator.state = state["generator"]
