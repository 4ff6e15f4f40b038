"""A toy task family without a simulator, trials that nobody lived, and agents small enough to test every part of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_config import AgentConfig

SMALL: dict[str, dict[str, Any]] = {
    "inference": {
        "encoder_hidden": (8, 8),
        "decoder_hidden": (8, 8),
        "latent_dim": 2,
        "window": 3,
        "batch_size": 12,
        "segment": 4,
        "validation_interval": 2,
        "patience": 4,
    },
    "actor_critic": {"hidden": (8, 8), "fraction_count": 4, "cosines": 6, "batch_size": 16},
    "relabel": {"utility_batch": 2, "normaliser_trials": 3},
    "exploration": {"initial": "policy"},
    "schedule": {"reconstruction_updates": 6, "policy_updates": 3, "replay_trials": 60},
}


def toy_reward(outcome: Any, task: Any) -> Any:
    """Minus the squared distance of the outcome to the task, `(...)`; NumPy or torch."""
    return -((outcome[..., 0] - task[..., 0]) ** 2)


def toy_success(outcome: Any, task: Any) -> Any:
    """Whether the outcome lies within 0.4 of the task, `(...)` bool; NumPy or torch."""
    return abs(outcome[..., 0] - task[..., 0]) <= 0.4


def toy_problem(**changes: Any) -> Problem:
    """Four tasks on a line, two episodes of five steps a trial."""
    problem = Problem(
        observation_dim=3,
        action_dim=2,
        horizon=5,
        episodes_per_trial=2,
        train_tasks=np.array([[-1.0], [-0.25], [0.5], [1.5]]),
        reward=toy_reward,
        outcome_dim=1,
        reconstruction_dims=2,
        relabelable=True,
        success=toy_success,
    )
    return replace(problem, **changes)


def small_config(**sections: dict[str, Any]) -> AgentConfig:
    """A complete agent of tiny networks; `small_config(relabel={"kind": "none"})` changes single keys."""
    content = {name: {**defaults, **sections.get(name, {})} for name, defaults in SMALL.items()}
    return AgentConfig(name="toy", algorithm="cemrl", description="", **content)  # pyright: ignore[reportArgumentType]


def random_trials(
    problem: Problem, count: int, seed: int, *, length: np.ndarray | None = None, task_index: np.ndarray | None = None
) -> Trials:
    """`count` random trials with the problem's own rewards; padding behind `length` is zero, as collection leaves it."""
    generator = np.random.default_rng(seed)
    steps = problem.horizon * problem.episodes_per_trial
    length = np.full(count, steps) if length is None else np.asarray(length)
    task_index = generator.integers(len(problem.train_tasks), size=count) if task_index is None else np.asarray(task_index)
    lived = np.arange(steps) < length[:, None]

    def normal(width: int) -> np.ndarray:
        return (generator.standard_normal((count, steps, width)) * lived[..., None]).astype(np.float32)

    outcome = normal(problem.outcome_dim)
    reward = problem.reward(outcome, problem.train_tasks[task_index][:, None]) * lived
    return Trials(
        observation=normal(problem.observation_dim),
        next_observation=normal(problem.observation_dim),
        action=np.tanh(normal(problem.action_dim)),
        reward=reward.astype(np.float32),
        terminated=(generator.random((count, steps)) < 0.1) & lived,
        outcome=outcome,
        episode=np.broadcast_to(np.arange(steps) // problem.horizon, (count, steps)).copy(),
        task_index=task_index.astype(np.int64),
        length=length.astype(np.int64),
    )


def as_tensors(trials: Trials, held_out: np.ndarray | None = None) -> dict[str, torch.Tensor]:
    """Trials as the replay takes them, as lived ones."""
    side = np.zeros(len(trials), dtype=bool) if held_out is None else held_out
    return {
        name: torch.as_tensor(value)
        for name, value in {**vars(trials), "held_out": side, "copy": np.zeros(len(trials), dtype=bool)}.items()
    }


def filled_replay(
    problem: Problem, trials: Trials, *, belief_dim: int = 2, capacity: int = 100, held_out: np.ndarray | None = None
) -> TrialReplay:
    """A replay that holds `trials`."""
    replay = TrialReplay(problem, capacity, belief_dim, torch.device("cpu"))
    replay.add(as_tensors(trials, held_out))
    return replay


def generator_of(seed: int) -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(seed)
