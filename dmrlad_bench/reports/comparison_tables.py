"""The tables of a comparison: headline, normalised scores, adaptation over the episodes of a trial, all families together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dmrlad_bench.reports.comparison import Comparison
from dmrlad_bench.reports.estimates import CONFIDENCE, Estimate
from dmrlad_bench.reports.formats import (
    ReportTable,
    agent_label,
    check_format,
    csv_text,
    estimate_text,
    few_runs_note,
    latex,
    markdown,
    plain,
    seeds_note,
    tracks_note,
)
from dmrlad_bench.reports.mixing import Group
from dmrlad_bench.reports.statistics import FEWEST_RUNS

DIGITS = {"return": 2, "regret": 2}
OTHER_DIGITS = 3
NOTHING = "-"


def comparison_text(comparison: Comparison, form: str) -> str:
    """The comparison as text in one of the accepted formats; raises `CardError` for another."""
    check_format(form)
    if form == "csv":
        return csv_text(list(comparison_records(comparison)))
    return {"table": plain, "markdown": markdown, "latex": latex}[form](comparison_tables(comparison))


def comparison_tables(comparison: Comparison) -> list[ReportTable]:
    """All tables, family by family, then over all families."""
    tables = []
    for family in comparison.families:
        groups = tuple(sorted(comparison.of_family(family), key=lambda group: group.track != "standard"))
        tables += [_headline(comparison, groups), _against(comparison, groups), _adaptation(comparison, groups)]
    if len(comparison.families) > 1:
        tables.append(_overall(comparison))
    return tables


def _headline(comparison: Comparison, groups: tuple[Group, ...]) -> ReportTable:
    rows, ranks = [], comparison.ranks(groups[0].family)
    earlier = range(min(group.episodes for group in groups) - 1)
    for group in groups:
        found = comparison.measures(group, -1)
        rows.append(
            (
                _name(group),
                str(len(group.seeds)),
                *(_cell(comparison.measures(group, episode), "return") for episode in earlier),
                _cell(found, "return"),
                _range_over_runs(found["return"]),
                NOTHING if ranks[group.label] is None else str(ranks[group.label]),
                _cell(found, "success"),
                _cell(found, "regret"),
                _cell(found, "normalised"),
                f"{group.environment_steps:.0f}",
                f"{group.minutes:.1f}",
            )
        )
    before = tuple(f"episode {episode + 1}" for episode in earlier)
    columns = ("agent", "runs", *before, "return", "by run", "rank", "success", "trial regret", "normalised", "env steps", "minutes")
    best = tuple((row, columns.index(name)) for row in _best(groups, ranks) for name in ("return", "normalised"))
    title = _title(comparison, groups, "the last episode of the trial")
    return ReportTable(title, columns, tuple(rows), _notes(comparison, groups), best)


def _best(groups: tuple[Group, ...], ranks: dict[str, int | None]) -> list[int]:
    """Rows of the agents of the first rank; where too few runs give no ranks, of the highest mean."""
    if set(ranks.values()) != {None}:
        return [row for row, group in enumerate(groups) if ranks[group.label] == 1]
    means = [float(group.returns[:, :, -1].mean()) for group in groups]
    return [row for row, mean in enumerate(means) if mean == max(means)]


def _against(comparison: Comparison, groups: tuple[Group, ...]) -> ReportTable:
    rows = []
    for group in groups:
        difference, improvement = comparison.difference(group), comparison.improvement(group)
        cells = (
            NOTHING if difference is None else _text(difference, DIGITS["return"]),
            NOTHING if improvement is None else _text(improvement),
        )
        rows.append((_name(group), *cells))
    columns = ("agent", f"return - {comparison.baseline}'s", f"P(better than {comparison.baseline})")
    return ReportTable(_title(comparison, groups, f"held against {comparison.baseline}"), columns, tuple(rows), _marks(comparison))


def _adaptation(comparison: Comparison, groups: tuple[Group, ...]) -> ReportTable:
    rows = []
    for group in groups:
        for episode in range(group.episodes):
            found = comparison.measures(group, episode)
            cells = (_cell(found, "return"), _range_over_runs(found["return"]), _cell(found, "success"), _cell(found, "normalised"))
            rows.append((_name(group) if episode == 0 else "", str(episode + 1), *cells))
    columns = ("agent", "episode", "return", "by run", "success", "normalised")
    return ReportTable(_title(comparison, groups, "adaptation within the trial"), columns, tuple(rows), _marks(comparison))


def _overall(comparison: Comparison) -> ReportTable:
    rows, missing = [], []
    for agent in sorted(comparison.agents, key=lambda agent: comparison.of_agent(agent)[0].track != "standard"):
        found = comparison.overall(agent)
        if found is None:
            missing.append(agent)
            continue
        rows.append(
            (
                _name(comparison.of_agent(agent)[0]),
                *(_cell(found, name) for name in ("success", "iqm", "mean", "median", "optimality_gap", "improvement")),
            )
        )
    notes = [
        "every family weighs the same, whatever its number of tasks and runs; a run counts with its mean over tasks",
        *_marks(comparison),
    ]
    few = [agent for agent in comparison.agents if any(len(group.seeds) < FEWEST_RUNS for group in comparison.of_agent(agent))]
    notes += [f"fewer than {FEWEST_RUNS} runs on some family, so no interval: {', '.join(few)}"] if few else []
    notes += [f"left out, for they have not run on all families: {', '.join(missing)}"] if missing else []
    columns = ("agent", "success", "IQM", "mean", "median", "optimality gap", f"P(better than {comparison.baseline})")
    title = f"all {len(comparison.families)} families: the last episode of the trial, {comparison.view}"
    return ReportTable(title, columns, tuple(rows), tuple(notes))


def _title(comparison: Comparison, groups: tuple[Group, ...], what: str) -> str:
    budgets = " and ".join(dict.fromkeys(group.budget for group in groups))
    tasks = " and ".join(dict.fromkeys(str(group.returns.shape[1]) for group in groups))
    return f"{groups[0].family}, budget {budgets}: {what}, {tasks} {comparison.view}"


def _notes(comparison: Comparison, groups: tuple[Group, ...]) -> tuple[str, ...]:
    notes = [*_marks(comparison)]
    notes.append(f"[low, high]: {CONFIDENCE:.0%} interval over runs; by run: lowest to highest mean return")
    notes.append(f"rank: agents that a {CONFIDENCE:.0%} interval of the difference in return does not part share one")
    notes.append("trial regret: the oracle's return less the agent's, over all episodes of the trial")
    notes += tracks_note(group.track for group in groups)
    notes += few_runs_note(group.label for group in groups if len(group.seeds) < FEWEST_RUNS)
    if len({group.seeds for group in groups}) > 1:
        notes.append(seeds_note((group.label, group.seeds) for group in groups))
    lacking = [group.label for group in groups if group.reference is None]
    if lacking:
        notes.append("no normalised scores and no regret: the family has no reference scores of blind and oracle")
    return tuple(notes)


def _name(group: Group) -> str:
    return agent_label(group.label, group.track)


def _marks(comparison: Comparison) -> tuple[str, ...]:
    return tuple(f"MIXED: {message}" for message in comparison.mixed)


def _range_over_runs(returns: Estimate) -> str:
    return NOTHING if returns.runs == 1 else f"{min(returns.values):.2f} to {max(returns.values):.2f}"


def _cell(found: dict[str, Estimate], name: str) -> str:
    return _text(found[name], DIGITS.get(name, OTHER_DIGITS)) if name in found else NOTHING


def _text(entry: Estimate, digits: int = OTHER_DIGITS) -> str:
    return estimate_text(entry, digits)


def comparison_records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Every number of the comparison, a record each; `episode` is counted from 1."""
    view = comparison.view
    common = {"split": view.split, "actions": "deterministic" if view.deterministic else "stochastic"}
    mixed = "; ".join(comparison.mixed)
    for family in comparison.families:
        for group in comparison.of_family(family):
            facts = {
                "seeds": " ".join(map(str, group.seeds)),
                "tasks": group.returns.shape[1],
                "environment_steps": group.environment_steps,
                "minutes": group.minutes,
                "mixed": mixed,
            }
            names = {"family": family, "agent": group.label, "budget": group.budget, "track": group.track} | common
            for episode in range(group.episodes):
                for measure, entry in comparison.measures(group, episode).items():
                    yield _record(names, episode + 1, measure, entry, "", facts)
            for measure, against in (("difference", comparison.difference(group)), ("improvement", comparison.improvement(group))):
                if against is not None:
                    yield _record(names, group.episodes, measure, against, comparison.baseline, facts)
    if len(comparison.families) > 1:
        for agent in comparison.agents:
            groups = comparison.of_agent(agent)
            facts = {
                "seeds": "",
                "tasks": sum(group.returns.shape[1] for group in groups),
                "environment_steps": float(np.sum([group.environment_steps for group in groups])),
                "minutes": float(np.sum([group.minutes for group in groups])),
                "mixed": mixed,
            }
            budgets = " ".join(dict.fromkeys(group.budget for group in groups))
            names = {"family": "all", "agent": agent, "budget": budgets, "track": groups[0].track} | common
            for measure, entry in (comparison.overall(agent) or {}).items():
                yield _record(names, groups[0].episodes, measure, entry, comparison.baseline if measure == "improvement" else "", facts)


def _record(names: dict[str, Any], episode: int, measure: str, entry: Estimate, against: str, facts: dict[str, Any]) -> dict[str, Any]:
    numbers = {"value": entry.value, "low": entry.low, "high": entry.high, "runs": entry.runs, "by_run": " ".join(map(str, entry.values))}
    return {**names, "episode": episode, "measure": measure, "against": against, **numbers, **facts}
