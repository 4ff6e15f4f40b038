"""What a run is going to do, known before anything heavy is imported: iterations, trials, environment steps, and the line that says so."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dmrlad_bench.agents.external import load_class
from dmrlad_bench.cards import AgentConfig, FamilyCard
from dmrlad_bench.cards.amounts import steps_until
from dmrlad_bench.harness.run import Run, RunConfig

SCORED_ONLY = ("random", "still", "scripted")  # algorithms that do not learn


def iterations(agent: AgentConfig) -> int:
    """Training iterations of a run; 0 for an agent that does not learn."""
    learns = hasattr(load_class(agent.import_path), "learn") if agent.import_path else agent.algorithm not in SCORED_ONLY
    return agent.schedule.iterations if learns else 0


def training_steps(agent: AgentConfig, family: FamilyCard) -> int:
    """Environment steps of a whole run's training, if no episode ends early."""
    return steps_of_schedule(agent, family) if iterations(agent) else 0


def steps_of_schedule(agent: AgentConfig, family: FamilyCard) -> int:
    """The same, of an agent that is known to learn: its class is not looked at."""
    return steps_until(agent, family, agent.schedule.iterations)


def title(config: RunConfig) -> str:
    """Names a run at the head of its lines."""
    return f"{config.family.name} {config.agent.name} seed {config.seed}"


def announcement(plans: Mapping[Path, RunConfig], jobs: int = 1) -> str | None:
    """One line: what is going to run, where, and how long that is; None where all of it has finished before."""
    left = {folder: config for folder, config in plans.items() if not Run(folder).finished}
    if not left:
        return None
    folder, config = next(iter(left.items()))
    threads = f"{_count(config.threads, 'thread')} of torch, {config.simulation_threads} of the simulation"
    steps = sum(training_steps(one.agent, one.family) for one in left.values())
    much = f"up to {steps} environment steps" if steps else "scoring only"
    if len(plans) == 1:
        rounds = iterations(config.agent)
        much = f"{_count(rounds, 'iteration')}, {much}" if rounds else much
        return f"{title(config)}: budget {config.budget}, {much}; {threads}; run folder: {folder}"
    together = f"{much} together" if steps else much
    at_a_time = f", {jobs} at a time" if jobs > 1 else ""
    return f"{_count(len(left), 'run')}{at_a_time}: budget {config.budget}, {together}; {threads} each; in {folder.parent.parent}"


def announce(plans: Mapping[Path, RunConfig], jobs: int = 1) -> None:
    """Print the announcement on standard error, at once."""
    line = announcement(plans, jobs)
    if line is not None:
        print(line, file=sys.stderr, flush=True)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
