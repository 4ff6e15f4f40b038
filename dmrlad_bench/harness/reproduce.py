"""Running a seed of a leaderboard entry again, and saying how far the new run lies from the entry's."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmrlad_bench.agents.external import complete
from dmrlad_bench.cards import CardError, load_family
from dmrlad_bench.harness.run import Run, RunConfig, has_cuda, run_name
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.harness.trust import check_trust
from dmrlad_bench.reports.estimates import CONFIDENCE
from dmrlad_bench.reports.leaderboard import Entry
from dmrlad_bench.reports.published_agent import source_digest
from dmrlad_bench.reports.results import Result
from dmrlad_bench.reports.statistics import FEWEST_RUNS
from dmrlad_bench.reports.student import t_quantile


@dataclass(frozen=True)
class Reproduction:
    """How a run compares with the entry that it repeats a seed of.

    Attributes:
        agrees: equal, or inside of the interval that one more run would lie in.
        text: one line for people.
    """

    agrees: bool
    text: str


def reproduce(entry: Entry, seed: int, out: Path, trust_code: bool = False) -> Reproduction:
    """Run a seed of an entry again, with the recorded device and threads where this machine has them.

    Args:
        entry: of a published family.
        seed: one of its seeds.
        out: the run folder is made below it.
        trust_code: whether the class that the entry names may be imported and run.

    Raises:
        CardError: no such seed, a family that has changed, an agent that this version cannot make, code that nobody trusts or that is
            another than what was submitted.
        RunFailed: the run failed.
    """
    recorded = next((run for run in entry.runs if run.seed == seed), None)
    if recorded is None:
        raise CardError(f"seed {seed}: the entry has no such run; accepted: {', '.join(map(str, entry.seeds))}")
    config = run_config(entry, recorded)
    folder = out / config.family.name / run_name(config.agent.name, config.budget, seed)
    check_trust(folder, config, trust_code)
    if entry.agent.import_path is not None and source_digest(entry.agent.import_path) != entry.agent.source:
        raise CardError(f"agent {entry.agent.import_path!r}: its source file here is another than the one that was submitted")
    complete(config.agent)
    command = ["dmrlad-bench", "leaderboard", "--reproduce", entry.file_name, "--seed", str(seed)]
    run: Run = train_run(config, folder, resume=False, command=command)
    return compared(entry, recorded, run.result)


def run_config(entry: Entry, recorded: Result) -> RunConfig:
    """The configuration of a run of an entry, on this machine; raises `CardError` where it cannot be had."""
    agent = entry.agent.resolved()
    if agent is None:
        raise CardError(f"agent {entry.agent.name!r}: was not trained by this package's `run`, and so cannot be run again by it")
    if agent.digest != entry.agent.digest:
        raise CardError(f"agent {entry.agent.name!r}: its configuration has digest {agent.digest!r}, the entry says {entry.agent.digest!r}")
    family = load_family(entry.family.id)
    if family.digest != entry.family.digest:
        raise CardError(f"family {family.id}: has digest {family.digest!r}, the entry's runs were made with {entry.family.digest!r}")
    return RunConfig(
        env=family.id,
        budget=entry.budget,  # pyright: ignore[reportArgumentType]
        seed=recorded.seed,
        device="cuda" if recorded.device == "cuda" and has_cuda() else "cpu",
        threads=recorded.threads,
        simulation_threads=min(recorded.simulation_threads or recorded.threads, os.cpu_count() or 1),
        agent=agent,
        family=family,
    )


def compared(entry: Entry, recorded: Result, again: Result) -> Reproduction:
    """How a run lies to those of an entry: equal, or where in the interval that one more run of them lies in at 95 %."""
    mean, before = _last_return(again), _last_return(recorded)
    what = f"{entry.agent.name} on {entry.family.id}, budget {entry.budget}, seed {recorded.seed}"
    if [matrix.returns for matrix in again.final] == [matrix.returns for matrix in recorded.final]:
        return Reproduction(True, f"{what}: equal, return {mean:.2f}")
    values = np.array([_last_return(run) for run in entry.runs])
    told = f"{what}: not equal: return {mean:.2f}, the entry has {before:.2f}"
    if len(values) < FEWEST_RUNS:
        return Reproduction(False, f"{told}; {len(values)} runs, and an interval of one more run takes {FEWEST_RUNS}")
    deviation = float(values.std(ddof=1))
    reach = t_quantile(len(values) - 1, CONFIDENCE) * deviation * math.sqrt(1.0 + 1.0 / len(values))
    centre = float(values.mean())
    apart = f"{(mean - centre) / deviation:+.1f} standard deviations from the mean of its {len(values)} runs" if deviation else "no spread"
    inside = abs(mean - centre) <= reach
    place = (
        f"{'inside' if inside else 'outside'} of [{centre - reach:.2f}, {centre + reach:.2f}], where one more run lies at {CONFIDENCE:.0%}"
    )
    return Reproduction(inside, f"{told}; {apart}; {place}{_differences(recorded, again)}")


def _last_return(run: Result) -> float:
    return float(run.scores().mean_returns[-1])


def _differences(recorded: Result, again: Result) -> str:
    """What of machine and packages is other than it was."""
    others = [name for name in ("device", "threads", "host") if getattr(recorded, name) != getattr(again, name)]
    others += [name for name, version in recorded.packages.items() if again.packages.get(name) != version]
    return f"; other than recorded: {', '.join(others)}" if others else "; on the same machine with the same packages"
