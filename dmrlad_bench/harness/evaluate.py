"""The K-episode protocol: every task of a split, K consecutive episodes in each, the task never shown."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from dmrlad_bench.agents.external import WatchedAgent
from dmrlad_bench.agents.interface import Agent
from dmrlad_bench.cards import CardError, nearest
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.harness.collect import Environments, roll_out
from dmrlad_bench.protocol import EPISODES, SPLITS, trials_of
from dmrlad_bench.reports.scores import TrialScores

MOST_EPISODES = 10_000


def reference_of(family: TaskFamily) -> tuple[float, float] | None:
    """Measured mean returns of (blind, oracle), or None."""
    reference = family.card.reference
    return None if reference is None else (reference.blind, reference.oracle)


def splits_of(family: TaskFamily, among: tuple[str, ...] = SPLITS) -> tuple[str, ...]:
    """Those of `among` that the family has tasks for, in that order."""
    return tuple(split for split in among if split in family.splits)


def spread(count: int, available: int) -> np.ndarray:
    """`count` task numbers, at most all, spread evenly over the `available` ones; 0 = all."""
    return np.linspace(0, available - 1, min(count or available, available)).round().astype(np.int64)


def score(
    environments: Environments,
    agent: Agent,
    split: str,
    seed: np.random.SeedSequence,
    *,
    episodes: int = EPISODES,
    deterministic: bool = True,
    tasks: int = 0,
    trials: int | None = None,
) -> TrialScores:
    """Score `agent` on a split. A fork of the agent acts, so training is not disturbed; an agent without `fork` acts itself.

    Args:
        environments: the family's environments.
        agent: who is scored.
        split: `test`, `train`, `ood` or `validation`.
        seed: of the environments and of the agent's own draws.
        episodes: K, consecutive episodes in each task.
        deterministic: whether the agent acts without noise.
        tasks: how many tasks, spread evenly over the split; 0 = all.
        trials: in every task, side by side, each from its own start; None = as many as the protocol has for the split.

    Raises:
        CardError: the family has no such split; fewer than one episode or trial.
    """
    family = environments.family
    known = splits_of(family)
    if split not in known:
        raise CardError(f"family {family.id} has no split {split!r}{nearest(split, known)}; accepted: {', '.join(known)}")
    if not 1 <= episodes <= MOST_EPISODES:
        raise CardError(f"episodes: expected {'at least 1' if episodes < 1 else f'at most {MOST_EPISODES}'}, got {episodes}")
    trials = trials_of(split) if trials is None else trials
    if not 1 <= trials <= MOST_EPISODES:
        raise CardError(f"trials: expected {'at least 1' if trials < 1 else f'at most {MOST_EPISODES}'}, got {trials}")
    environment_seed, agent_seed = seed.spawn(2)
    task_index = spread(tasks, len(family.tasks(split)))
    generator = np.random.default_rng(environment_seed)
    rows = np.repeat(task_index, trials)
    with agent.scored() if isinstance(agent, WatchedAgent) else nullcontext():
        actor: Any = agent.fork(agent_seed) if hasattr(agent, "fork") else agent  # pyright: ignore[reportAttributeAccessIssue]
        rolled = roll_out(environments, actor, split, rows, episodes=episodes, generator=generator, deterministic=deterministic)
    shape = (len(task_index), trials, episodes)
    return TrialScores(split, deterministic, task_index, rolled.returns.reshape(shape), rolled.success.reshape(shape), reference_of(family))
