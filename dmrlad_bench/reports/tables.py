"""Tables for standard output."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Group
from rich.table import Table
from rich.text import Text

from dmrlad_bench.reports.formats import agent_label
from dmrlad_bench.reports.results import Result
from dmrlad_bench.reports.scores import TrialScores


def scores_table(title: str, scores: Sequence[TrialScores]) -> Group:
    """One row for each split and episode of the trial: mean return, success rate, mean normalised score."""
    table = Table()
    for name in ("split", "actions", "tasks", "trials"):
        table.add_column(name)
    for name in ("episode", "return", "success", "normalised"):
        table.add_column(name, justify="right")
    for entry in scores:
        normalised = entry.normalised
        for number in range(entry.episodes):
            first = number == 0
            table.add_row(
                entry.split if first else "",
                ("deterministic" if entry.deterministic else "stochastic") if first else "",
                str(len(entry.task_index)) if first else "",
                str(entry.trials) if first else "",
                str(number + 1),
                f"{entry.mean_returns[number]:.2f}",
                f"{entry.success_rates[number]:.2f}",
                "-" if normalised is None else f"{normalised[:, number].mean():.3f}",
                end_section=number == entry.episodes - 1,
            )
    return Group(Text(title), table)


def result_table(result: Result) -> Group:
    """The final scores of a run."""
    agent = agent_label(result.agent.name, result.agent.track)
    title = f"{agent} on {result.family.id}, budget {result.budget}, seed {result.seed}, {result.environment_steps} steps"
    return scores_table(title, [matrix.scores(result.family.reference) for matrix in result.final])


def ended_line(result: Result) -> str:
    """How one run of several ended: the headline that `runs_table` has of it."""
    scores = result.scores()
    seconds = round(result.wall_seconds.total)
    returned = f"return {scores.mean_returns[-1]:.2f}, success {scores.success_rates[-1]:.2f} in the last episode of the test trials"
    return f"finished after {timedelta(seconds=seconds)}: {returned}"


def runs_table(results: Sequence[Result]) -> Group:
    """One row for each run: the headline, which is the last episode of the test trials under deterministic actions."""
    table = Table("agent", "family", "budget", "track")
    for name in ("seed", "return", "success", "normalised"):
        table.add_column(name, justify="right")
    for result in results:
        scores = result.scores()
        normalised = scores.normalised
        table.add_row(
            result.agent.name,
            result.family.id,
            result.budget,
            result.agent.track,
            str(result.seed),
            f"{scores.mean_returns[-1]:.2f}",
            f"{scores.success_rates[-1]:.2f}",
            "-" if normalised is None else f"{normalised[:, -1].mean():.3f}",
        )
    return Group(Text("all runs: the last episode of the trials on the test tasks, deterministic actions"), table)


def phases_table(result: Result, reconstruction_updates: int = 0) -> Group:
    """Wall seconds of a run by phase, each phase's share, and the rate of those that have a count.

    Args:
        result: of the run.
        reconstruction_updates: how many of its gradient updates trained task inference; the others are policy updates.
    """
    seconds = result.wall_seconds
    table = Table("phase")
    for name in ("seconds", "share", "rate"):
        table.add_column(name, justify="right")
    parts = dict(seconds.phases) | {"rest": seconds.total - sum(seconds.phases.values())}
    counts = {"reconstruct": reconstruction_updates, "improve": result.gradient_updates - reconstruction_updates}
    for phase, spent in sorted(parts.items(), key=lambda entry: -entry[1]):
        rate = f"{1e3 * spent / counts[phase]:.3g} ms an update" if counts.get(phase) else ""
        if phase == "collect" and result.environment_steps and spent > 0:
            rate = f"{result.environment_steps / spent:.0f} environment steps/s"
        table.add_row(phase, f"{spent:.1f}", f"{spent / seconds.total:.1%}", rate)
    table.add_row("total", f"{seconds.total:.1f}", "", "")
    return Group(Text("wall seconds by phase"), table)
