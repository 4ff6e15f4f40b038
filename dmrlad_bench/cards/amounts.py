"""How much a run collects: arithmetic on an agent's schedule and a family's card, before anything is imported or run."""

from __future__ import annotations

import math
from typing import NamedTuple

from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.family import FamilyCard


class Collected(NamedTuple):
    """What one training iteration collects."""

    tasks: int
    trials_per_task: int
    episodes: int
    horizon: int

    @property
    def steps(self) -> int:
        """Environment steps, if no episode ends early."""
        return self.tasks * self.trials_per_task * self.episodes * self.horizon


def collected(agent: AgentConfig, family: FamilyCard, iteration: int) -> Collected:
    """What training iteration `iteration`, counted from 1, collects."""
    schedule, available = agent.schedule, len(family.tasks.train)
    episodes = schedule.episodes_per_trial or family.episodes_per_trial
    if iteration <= agent.exploration.initial_iterations:
        trials = math.ceil(schedule.initial_steps_per_task / (family.horizon * episodes))
        return Collected(min(schedule.initial_tasks or available, available), trials, episodes, family.horizon)
    return Collected(min(schedule.tasks_per_iteration, available), schedule.trials_per_task, episodes, family.horizon)


def steps_until(agent: AgentConfig, family: FamilyCard, iteration: int) -> int:
    """Environment steps of the first `iteration` training iterations, if no episode ends early."""
    initial = min(agent.exploration.initial_iterations, iteration)
    first = initial * collected(agent, family, 1).steps if initial else 0
    return first + (iteration - initial) * collected(agent, family, agent.exploration.initial_iterations + 1).steps


def evaluated_iterations(agent: AgentConfig, iterations: int) -> list[int]:
    """After which iterations a learning curve has its points: every `evaluation_interval`-th and the last; [0] without training."""
    every = agent.schedule.evaluation_interval
    return sorted({*range(every, iterations + 1, every), iterations})
