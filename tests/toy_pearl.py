"""PEARL on the toy task family, small enough to test every part of."""

from __future__ import annotations

from typing import Any

import numpy as np
from toy_problem import random_trials, small_config, toy_problem

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.pearl import PearlAgent
from dmrlad_bench.cards.agent_config import AgentConfig

PROBLEM = toy_problem()
SMALL_PEARL: dict[str, dict[str, Any]] = {
    "actor_critic": {"hidden": (8, 8), "critic": "scalar", "batch_size": 6},
    "pearl": {"latent_dim": 2, "encoder_hidden": (8, 8), "context_batch": 7, "recent_trials": 2, "meta_batch": 3, "reward_scale": 2.0},
    "relabel": {"kind": "none"},
    "schedule": {"reconstruction_updates": 0, "policy_updates": 3},
}


def pearl_config(**sections: dict[str, Any]) -> AgentConfig:
    """A complete PEARL of tiny networks; `pearl_config(pearl={"latent_dim": 3})` changes single keys."""
    content = small_config(
        **{name: {**SMALL_PEARL.get(name, {}), **sections.get(name, {})} for name in ("actor_critic", "relabel", "exploration", "schedule")}
    )
    own = {**SMALL_PEARL["pearl"], **sections.get("pearl", {})}
    fields = {**content.model_dump(), "algorithm": "pearl", "inference": {"kind": "none", **sections.get("inference", {})}, "pearl": own}
    return AgentConfig.model_validate(fields)


def pearl_of(seed: int = 0, problem: Problem = PROBLEM, **sections: Any) -> PearlAgent:
    agent = build_agent(pearl_config(**sections), problem, np.random.SeedSequence(seed), "cpu")
    assert isinstance(agent, PearlAgent)
    return agent


def pearl_trials(seed: int, count: int = 8) -> Trials:
    """Trials of unequal lengths, each task at least twice."""
    return random_trials(PROBLEM, count, seed, length=np.resize([10, 4, 7, 9], count), task_index=np.arange(count) % 4)
