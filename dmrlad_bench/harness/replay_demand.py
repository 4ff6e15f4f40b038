"""How many trials a run adds to its replay at once: known before it starts, so that a replay that cannot hold them is refused then."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dmrlad_bench.cards import AgentConfig, CardError

LEARNERS = ("cemrl", "pearl", "rl2", "thompson", "task-posterior")  # those that keep a replay of ours
RELABELLERS = ("cemrl", "pearl", "thompson", "task-posterior")


@dataclass(frozen=True)
class Sizes:
    """The numbers of a task family that a run's size depends on.

    Attributes:
        observation_dim, action_dim, outcome_dim: entries of an observation, the task included where it is shown; an action; an outcome.
        horizon: steps of an episode.
        episodes: of a trial.
        tasks: training tasks.
        widest: environments that run side by side at most; None where any number may.
        relabelable: whether trials may be filed under other tasks.
        changing: whether trials record the task in force at each step.
    """

    observation_dim: int
    action_dim: int
    outcome_dim: int
    horizon: int
    episodes: int
    tasks: int
    widest: int | None
    relabelable: bool
    changing: bool

    @property
    def steps(self) -> int:
        """Steps of a trial."""
        return self.horizon * self.episodes


@dataclass(frozen=True)
class Addition:
    """What one iteration adds to the replay: the collected trials first, then their relabelled copies, each at once."""

    when: str
    trials: int
    copies: int
    keys: tuple[str, ...]  # that the trials' number comes from


def additions(agent: AgentConfig, sizes: Sizes) -> tuple[Addition, ...]:
    """The two kinds of iterations: the initial ones, and the later ones where there are any."""
    schedule = agent.schedule
    initial = min(schedule.initial_tasks or sizes.tasks, sizes.tasks) * math.ceil(schedule.initial_steps_per_task / sizes.steps)
    later = min(schedule.tasks_per_iteration, sizes.tasks) * schedule.trials_per_task
    first = agent.exploration.initial_iterations
    found = [
        Addition("an initial iteration", initial, copies(agent, sizes, initial, first > 1), ("initial_tasks", "initial_steps_per_task"))
    ]
    if schedule.iterations > first:
        found.append(Addition("an iteration", later, copies(agent, sizes, later, True), ("tasks_per_iteration", "trials_per_task")))
    return tuple(found)


def copies(agent: AgentConfig, sizes: Sizes, trials: int, earlier: bool) -> int:
    """Relabelled copies that so many new trials bring, and those of revisited ones where there are `earlier` iterations."""
    relabel = agent.relabel
    if agent.algorithm not in RELABELLERS or relabel.kind == "none" or not sizes.relabelable:
        return 0
    by_gain = relabel.copies_by_gain if relabel.kind == "hfr" else 0
    sources = trials + (relabel.revisited if earlier else 0)
    return sources * min(relabel.copies - by_gain, sizes.tasks) + by_gain * trials


def check_replay(agent: AgentConfig, sizes: Sizes) -> None:
    """Raises `CardError` where the replay cannot hold what an iteration adds at once."""
    if agent.algorithm not in LEARNERS:
        return
    capacity = agent.schedule.replay_trials
    for addition in additions(agent, sizes):
        most = max(addition.trials, addition.copies)
        if most <= capacity:
            continue
        keys = ", ".join(f"schedule.{key} = {getattr(agent.schedule, key)}" for key in addition.keys)
        what = f"{most} trials"
        if addition.copies > addition.trials:
            keys += f", relabel.copies = {agent.relabel.copies}, relabel.revisited = {agent.relabel.revisited}"
            what = f"{most} copies of trials"
        raise CardError(f"schedule.replay_trials = {capacity}: {addition.when} adds {what} at once ({keys}); expected at least {most}")
