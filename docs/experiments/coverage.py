"""How often 95 % intervals cover the truth, when it is known: simulated scores of runs that differ, on tasks that differ.

`python docs/experiments/coverage.py` writes the table of docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
from scipy.special import ndtr, ndtri

from dmrlad_bench.reports.family_statistics import families_interval, mean_of_intervals
from dmrlad_bench.reports.run_statistics import difference_interval, run_improvement, run_improvement_interval
from dmrlad_bench.reports.statistics import (
    Statistic,
    bootstrap_distribution,
    interquartile_mean,
    interval,
    mean_score,
    optimality_gap,
    run_interval,
    run_means,
    stratified_bootstrap,
)

PAGE = Path(__file__).resolve().parent.parent / "statistics.md"
BEGIN, END = "<!-- coverage: written by docs/experiments/coverage.py -->", "<!-- end of coverage -->"
CONFIDENCE = 0.95
RUNS = (2, 3, 5, 10, 20)
REPETITIONS = 4000
DRAWS = 400  # of a bootstrap
TASKS = 30
# standard deviations of returns, of the size measured on CheetahVelSparse: of runs, of tasks, of a run in a task, of a trial
RUN, TASK, RUN_AND_TASK, TRIAL = 60.0, 130.0, 100.0, 60.0
LEVELS = (0.9, 0.6, 0.4, 0.1)  # normalised scores of four families
SCALE = 400.0  # return from a normalised score of 0 to one of 1
BETTER = 70.0  # by how much one of two agents is
FAILING, FALL = 0.25, 200.0  # share of runs that fail, and how much lower they end
FEWEST_FOR_BCA = 8

Interval = tuple[float, float] | None


def simulated(runs: int, level: float, tasks: np.ndarray, generator: np.random.Generator, run: float = RUN) -> np.ndarray:
    """`(runs, tasks)` returns: the level, a shift of each run, one of each task, one of each run in each task, one of each trial.

    Args:
        runs: how many.
        level: mean return.
        tasks: `(tasks,)` shift of each, the same in all runs.
        generator: of all the others.
        run: standard deviation between runs.
    """
    shape = (runs, len(tasks))
    of_runs = generator.normal(0.0, run, size=(runs, 1))
    return level + tasks + of_runs + generator.normal(0.0, RUN_AND_TASK, size=shape) + generator.normal(0.0, TRIAL, size=shape)


def deviation_of_run_means(run: float = RUN) -> float:
    """Standard deviation of the mean over tasks of a simulated run."""
    return float(np.sqrt(run**2 + (RUN_AND_TASK**2 + TRIAL**2) / TASKS))


def of_one_family(runs: int, generator: np.random.Generator) -> tuple[float, Interval, Interval]:
    """The truth about a mean return, its interval over runs, and the one that draws the seeds of each task for itself."""
    tasks = generator.normal(0.0, TASK, size=TASKS)
    scores = simulated(runs, 0.0, tasks, generator)
    old = stratified_bootstrap(scores, mean_score, DRAWS, CONFIDENCE, generator)
    return float(tasks.mean()), run_interval(scores, mean_score, CONFIDENCE, generator), old


def of_failing_runs(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The truth about a mean return where some runs fail altogether, and its interval over runs."""
    tasks = generator.normal(0.0, TASK, size=TASKS)
    scores = simulated(runs, 0.0, tasks, generator) - FALL * (generator.random((runs, 1)) < FAILING)
    return float(tasks.mean()) - FAILING * FALL, run_interval(scores, mean_score, CONFIDENCE, generator), None


def by_bca(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The truth about a mean return, and the bias-corrected and accelerated bootstrap interval of the run means."""
    tasks = generator.normal(0.0, TASK, size=TASKS)
    means = run_means(simulated(runs, 0.0, tasks, generator))
    if runs < FEWEST_FOR_BCA:
        return 0.0, None, None
    drawn = scipy.stats.bootstrap((means,), np.mean, n_resamples=1000, confidence_level=CONFIDENCE, method="BCa", random_state=generator)
    return float(tasks.mean()), tuple(drawn.confidence_interval), None


def over_families(statistic: Statistic, runs: int, generator: np.random.Generator) -> tuple[float, Interval, Interval]:
    """The same of a statistic over four families; the old way, the statistic was taken in each family, and its mean over them."""
    tasks = [generator.normal(0.0, TASK, size=TASKS) for _ in LEVELS]
    pairs = list(zip(LEVELS, tasks, strict=True))
    families = [simulated(runs, SCALE * level, own, generator) / SCALE for level, own in pairs]
    spread = deviation_of_run_means() * ndtri((np.arange(2000) + 0.5) / 2000)  # of endlessly many runs
    endless = np.stack([level + (own.mean() + spread) / SCALE for level, own in pairs], axis=1)
    old = None
    if statistic is mean_score:
        old = interval(np.mean([bootstrap_distribution(own, statistic, DRAWS, generator) for own in families], axis=0), CONFIDENCE)
    return float(statistic(endless)), families_interval(families, statistic, CONFIDENCE, generator, DRAWS), old


def of_two_agents(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The truth about a difference of mean returns, and Welch's interval; one agent's runs differ half as much."""
    x, y = _two_agents(runs, generator)
    return BETTER, difference_interval(x, y, CONFIDENCE), None


def of_paired_agents(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The same where runs of one seed share a shift, and the interval pairs them."""
    x, y = _two_agents(runs, generator)
    shared = generator.normal(0.0, RUN, size=(runs, 1))
    return BETTER, difference_interval(x + shared, y + shared, CONFIDENCE, paired=True), None


def of_improvement(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The truth about the probability that a run of one agent beats a run of the other, and its interval."""
    spread = np.hypot(deviation_of_run_means(), deviation_of_run_means(RUN / 2.0))
    return float(ndtr(BETTER / spread)), run_improvement_interval(*_two_agents(runs, generator), CONFIDENCE), None


def of_improvement_over_families(runs: int, generator: np.random.Generator) -> tuple[float, Interval, None]:
    """The same over four families, in which the one agent is better by nothing to three times `BETTER` / 2."""
    spread = np.hypot(deviation_of_run_means(), deviation_of_run_means(RUN / 2.0))
    shifts = [number * BETTER / 2.0 for number in range(len(LEVELS))]
    pairs = [(x - BETTER + shift, y) for shift in shifts for x, y in [_two_agents(runs, generator)]]
    intervals = [run_improvement_interval(*pair, CONFIDENCE) for pair in pairs]
    return float(np.mean(ndtr(np.array(shifts) / spread))), mean_of_intervals([run_improvement(*pair) for pair in pairs], intervals), None


def _two_agents(runs: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    tasks = generator.normal(0.0, TASK, size=TASKS)
    return simulated(runs, BETTER, tasks, generator), simulated(runs, 0.0, tasks, generator, RUN / 2.0)


QUANTITIES: dict[str, Callable[[int, np.random.Generator], tuple[float, Interval, Interval]]] = {
    "mean return, one family": of_one_family,
    "the same by BCa": by_bca,
    "mean, one run in four fails": of_failing_runs,
    "mean over four families": lambda runs, generator: over_families(mean_score, runs, generator),
    "IQM over four families": lambda runs, generator: over_families(interquartile_mean, runs, generator),
    "optimality gap over four families": lambda runs, generator: over_families(optimality_gap, runs, generator),
    "difference of two agents": of_two_agents,
    "difference, seeds paired": of_paired_agents,
    "probability of improvement": of_improvement,
    "the same over four families": of_improvement_over_families,
}


@dataclass(frozen=True)
class Coverage:
    """Shares of repetitions in which an interval held the truth; None where there is no interval."""

    runs: float | None
    tasks_apart: float | None


def coverage(quantity: str, runs: int, repetitions: int = REPETITIONS, seed: int = 0) -> Coverage:
    """Simulate `repetitions` times, each with tasks and runs of its own, and count how often the truth is covered."""
    generator = np.random.default_rng([seed, runs, list(QUANTITIES).index(quantity)])
    held: tuple[list[bool], list[bool]] = ([], [])
    for _ in range(repetitions):
        truth, *found = QUANTITIES[quantity](runs, generator)
        for kept, ends in zip(held, found, strict=True):
            if ends is not None:
                kept.append(ends[0] <= truth <= ends[1])
    return Coverage(*(float(np.mean(kept)) if kept else None for kept in held))


def table() -> str:
    """All quantities and numbers of runs, in Markdown: over runs, and in brackets each task for itself."""
    lines = ["| runs | " + " | ".join(QUANTITIES) + " |", "|---:|" + "---:|" * len(QUANTITIES)]
    for runs in RUNS:
        lines.append(f"| {runs} | " + " | ".join(_cell(coverage(quantity, runs)) for quantity in QUANTITIES) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: Coverage) -> str:
    new = "none" if found.runs is None else f"{100 * found.runs:.1f}"
    return new if found.tasks_apart is None else f"{new} ({100 * found.tasks_apart:.1f})"


def main() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    PAGE.write_text(f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
