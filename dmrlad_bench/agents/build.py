"""From a resolved configuration to an agent."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.agents.interface import Agent, Problem
from dmrlad_bench.cards.agent_config import AgentConfig


def build_agent(config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> Agent:
    """Build the agent that `config.algorithm` names.

    Args:
        config: resolved configuration.
        problem: sizes, training tasks and reward function of the family, as the agent sees them.
        seed: source of the agent's randomness.
        device: torch device of the learner, `cpu` or `cuda`.
    """
    if config.algorithm == "random":
        from dmrlad_bench.agents.simple import RandomAgent

        return RandomAgent(problem, seed)
    if config.algorithm == "still":
        from dmrlad_bench.agents.simple import StillAgent

        return StillAgent(problem, seed)
    if config.algorithm == "external":
        from dmrlad_bench.agents.external import build_external

        return build_external(config, problem, seed, device)
    if config.algorithm == "rl2":
        from dmrlad_bench.agents.rl2 import Rl2

        return Rl2(config, problem, seed, device)
    if config.algorithm == "pearl":
        from dmrlad_bench.agents.pearl import PearlAgent

        return PearlAgent(config, problem, seed, device)
    if config.algorithm == "thompson":
        from dmrlad_bench.agents.thompson import Thompson

        return Thompson(config, problem, seed, device)
    if config.algorithm == "task-posterior":
        from dmrlad_bench.agents.task_posterior import TaskPosterior

        return TaskPosterior(config, problem, seed, device)
    from dmrlad_bench.agents.cemrl import Cemrl

    return Cemrl(config, problem, seed, device)
