"""The leaderboards as tables: one for each family and budget, the best agent first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dmrlad_bench.cards import BUDGETS, agent_names, load_agent, load_family, resolve_agent
from dmrlad_bench.protocol import EPISODES
from dmrlad_bench.reports.estimates import CONFIDENCE
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
from dmrlad_bench.reports.leaderboard import Entry, standard_steps
from dmrlad_bench.reports.run_statistics import shared_ranks
from dmrlad_bench.reports.statistics import FEWEST_RUNS

NOTHING = "-"
OTHER_STEPS = "other"  # of `Entry.budget_steps`
TRACKS = ("standard", "privileged", OTHER_STEPS)
MARK = "\N{DAGGER}"
COLUMNS = (
    "agent",
    "rank",
    "runs",
    *(f"return, episode {episode}" for episode in range(1, EPISODES + 1)),
    "success",
    "trial regret",
    "normalised",
    "train",
    "ood",
    "env steps",
    "minutes",
)
INTRODUCTION = f"""# Leaderboards

One file for each family, agent and budget: `<family>/<agent>--<budget>.json`. It holds the results of all its seeds, and every number
below follows from them; `dmrlad-bench leaderboard --check` computes all of them again. This page is made by
`dmrlad-bench leaderboard --markdown`.

Scores are those of held-out test tasks under deterministic actions; where no episode is named, of the last episode of the trial.
`train` and `ood` are returns on the training tasks and on tasks outside of their range. The test tasks lie between training tasks, so
`test` interpolates. A normalised score is 0 at `blind`'s return, which is what one gets without adapting, and 1 at `oracle`'s, which is
told the task. The regret is the oracle's return less the agent's, summed over the {EPISODES} episodes of a trial, so exploring is paid for.
Brackets hold 95 % intervals over runs, for all tasks of a run come from one trained agent; where there are fewer than three runs there is
none, and parentheses hold the runs' values.

**Ranks.** Agents are ordered by the mean over runs of the last episode's return. An agent's rank is one more than the number of agents of
its track that are better by a 95 % interval of the difference; agents that the interval does not part share a rank. The interval pairs
runs where both agents have the same seeds. Agents of the track `privileged`, which at test time are shown the task or are handed reward
function or task list, stand below the others and are ranked among themselves. Agents that trained with other environment steps than the
budget's are marked, stand last, and have no rank. A table holds one budget only.
"""
EMPTY = "There are no entries yet.\n"


def leaderboard_text(entries: Sequence[Entry], form: str) -> str:
    """All tables in one of the accepted formats; raises `CardError` for another."""
    check_format(form)
    if form == "csv":
        return csv_text(list(leaderboard_records(entries)))
    return {"table": plain, "markdown": markdown, "latex": latex}[form](leaderboard_tables(entries))


def leaderboard_markdown(entries: Sequence[Entry]) -> str:
    """The content of `leaderboards/README.md`."""
    tables = leaderboard_tables(entries)
    return f"{INTRODUCTION}\n{markdown(tables, level=2) if tables else EMPTY}"


def leaderboard_tables(entries: Sequence[Entry]) -> list[ReportTable]:
    """One table for each family and budget; an agent's name carries a mark where its card has changed since."""
    return [_table(boards) for boards in _boards(entries)]


def _boards(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    keys = sorted({(entry.family.id, BUDGETS.index(entry.budget)) for entry in entries})
    for family, budget in keys:
        board = [entry for entry in entries if (entry.family.id, entry.budget) == (family, BUDGETS[budget])]
        yield sorted(board, key=lambda entry: (TRACKS.index(_league(entry)), -_headline(entry), entry.agent.name))


def _league(entry: Entry) -> str:
    """Whom an entry is ranked among."""
    return OTHER_STEPS if entry.budget_steps == OTHER_STEPS else entry.agent.track


def _headline(entry: Entry) -> float:
    """What agents are ordered by: the return in the last episode, its mean over runs."""
    last = entry.aggregate("test", True, EPISODES)
    return float("-inf") if last is None else last.returns.value


def board_ranks(board: Sequence[Entry]) -> list[int | None]:
    """The rank of each entry of one family and budget among those of its track; None for fewer than three runs, or for other steps."""
    ranks: dict[str, int | None] = {}
    for league in TRACKS[:-1]:
        own = [entry for entry in board if _league(entry) == league]
        found = [(entry.seeds, last.returns.values) for entry in own if (last := entry.aggregate("test", True, EPISODES)) is not None]
        if len(found) == len(own) and own:
            scores, seeds = [np.array(values)[:, None] for _, values in found], [seeds for seeds, _ in found]
            ranks |= zip((entry.file_name for entry in own), shared_ranks(scores, seeds, CONFIDENCE), strict=True)
    return [ranks.get(entry.file_name) for entry in board]


def _table(board: Sequence[Entry]) -> ReportTable:
    first = board[0]
    notes = []
    for entry in board:
        if change := changed_since(entry):
            notes.append(f"{entry.agent.name}: {change}")
    marked = [entry for entry in board if entry.budget_steps == OTHER_STEPS]
    if marked:
        steps = standard_steps(load_family(first.family.id), first.budget)
        names = ", ".join(entry.agent.name for entry in marked)
        notes.append(f"{MARK} other environment steps than the budget's {steps}, so no rank: {names}")
    notes += tracks_note(entry.agent.track for entry in board)
    notes += few_runs_note(entry.agent.name for entry in board if len(entry.seeds) < FEWEST_RUNS)
    if len({entry.seeds for entry in board}) > 1:
        notes.append(seeds_note((entry.agent.name, entry.seeds) for entry in board))
    if first.family.reference is None:
        notes.append("no normalised scores and no regret: the family has no reference scores of blind and oracle")
    return ReportTable(f"{first.family.id}, budget {first.budget}", COLUMNS, tuple(map(_row, board, board_ranks(board))), tuple(notes))


def _row(entry: Entry, rank: int | None) -> tuple[str, ...]:
    last = entry.aggregate("test", True, EPISODES)
    normalised = None if last is None else last.normalised
    regret = None if last is None else last.regret
    return (
        agent_label(entry.agent.name, entry.agent.track) + (f" {MARK}" if entry.budget_steps == OTHER_STEPS else ""),
        NOTHING if rank is None else str(rank),
        str(len(entry.seeds)),
        *(_returns(entry, "test", episode) for episode in range(1, EPISODES + 1)),
        NOTHING if last is None else estimate_text(last.success, 3),
        NOTHING if regret is None else estimate_text(regret, 2),
        NOTHING if normalised is None else estimate_text(normalised, 3),
        _returns(entry, "train", EPISODES),
        _returns(entry, "ood", EPISODES),
        f"{entry.mean_environment_steps:.0f}",
        f"{entry.mean_minutes:.1f}",
    )


def _returns(entry: Entry, split: str, episode: int) -> str:
    found = entry.aggregate(split, True, episode)
    if found is None:
        return NOTHING
    return estimate_text(found.returns, 2) if split == "test" else f"{found.returns.value:.2f}"


def changed_since(entry: Entry) -> str | None:
    """What has become of the agent's card since the entry was made; None where the preset is the same, or where it was none."""
    if not entry.agent.preset:
        return None
    if entry.agent.name not in agent_names():
        return "card removed since"
    config = resolve_agent(load_agent(entry.agent.name), load_family(entry.family.id).name, entry.budget)
    return None if config.digest == entry.agent.digest else "card changed since: today's settings are others than those that were run"


def leaderboard_records(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """Every aggregate of every entry, a record each."""
    for board in _boards(entries):
        for entry, rank in zip(board, board_ranks(board), strict=True):
            names = {
                "family": entry.family.id,
                "agent": entry.agent.name,
                "budget": entry.budget,
                "track": entry.agent.track,
                "card": changed_since(entry) or "",
            }
            for aggregate in entry.aggregates:
                actions = "deterministic" if aggregate.deterministic else "stochastic"
                place = {"split": aggregate.split, "actions": actions, "episode": aggregate.episode}
                measures = {"return": aggregate.returns, "success": aggregate.success}
                measures |= {"normalised": aggregate.normalised, "regret": aggregate.regret}
                for measure, found in measures.items():
                    if found is None:
                        continue
                    facts = {
                        "seeds": " ".join(map(str, entry.seeds)),
                        "environment_steps": entry.mean_environment_steps,
                        "steps": entry.budget_steps,
                    }
                    numbers = {"value": found.value, "low": found.low, "high": found.high, "by_run": " ".join(map(str, found.values))}
                    yield {**names, "rank": rank, **place, "measure": measure, **numbers, **facts, "minutes": entry.mean_minutes}
