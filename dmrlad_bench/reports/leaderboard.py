"""Leaderboard entries, `leaderboards/<family>/<agent>--<budget>.json`: the model, its schema, and aggregates from its runs."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from dmrlad_bench.cards import BUDGETS, CardError, FamilyCard, load_agent, load_family, register_folder, resolve_agent
from dmrlad_bench.cards.amounts import steps_until
from dmrlad_bench.cards.external import SCHEDULED_AS
from dmrlad_bench.reports.estimates import CONFIDENCE, Estimate, measures
from dmrlad_bench.reports.published_agent import About, PublishedAgent
from dmrlad_bench.reports.register import REGISTER
from dmrlad_bench.reports.results import FamilyRecord, Result, ResultModel, read_versioned
from dmrlad_bench.reports.statistics import FEWEST_RUNS

ENTRY_FORMAT_VERSION = 2
LIST_OF_PLAIN_VALUES = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")
README = "README.md"
SAME_STEPS = 0.02  # relative: training iterations of other sizes do not end at the same step


class Aggregate(ResultModel):
    """All runs and tasks of one split in one episode of the trial."""

    split: Literal["train", "validation", "test", "ood"]
    deterministic: bool
    episode: int = Field(ge=1, description="counted from 1")
    returns: Estimate
    success: Estimate
    normalised: Estimate | None = Field(description="mean normalised score, where the family has references")
    regret: Estimate | None = Field(
        description="(oracle - return) summed over the episodes up to this one, where the family has references"
    )


class Intervals(ResultModel):
    """How the intervals were made: Student's t interval of the run means, and none under the fewest runs."""

    confidence: float = CONFIDENCE
    fewest_runs: int = FEWEST_RUNS


class Entry(ResultModel):
    """One published configuration on one family with one budget, all its seeds.

    Whatever is not in `runs` follows from them; `content_digest` is the SHA-256 of everything else.
    """

    format_version: Literal[2] = ENTRY_FORMAT_VERSION
    family: FamilyRecord
    agent: PublishedAgent
    about: About
    budget: str
    budget_steps: Literal["standard", "none", "other"] = Field(
        description="environment steps of its training: as many as the budget's standard schedule has; none; or others, and so unranked"
    )
    seeds: tuple[int, ...] = Field(min_length=1, description="ascending; one run each")
    mean_environment_steps: float
    mean_minutes: float = Field(description="wall minutes of a run")
    intervals: Intervals
    aggregates: tuple[Aggregate, ...]
    runs: tuple[Result, ...] = Field(description="the results as the runs wrote them; their commands without --out")
    content_digest: str

    @model_validator(mode="after")
    def _whole(self) -> Entry:
        found = tuple(run.seed for run in self.runs)
        if found != self.seeds or list(found) != sorted(set(found)):
            raise ValueError(f"expected one run for each of the seeds {list(self.seeds)}, ascending, found runs of {list(found)}")
        if self.budget not in BUDGETS:
            raise ValueError(f"unknown budget {self.budget!r}; accepted: {', '.join(BUDGETS)}")
        return self

    @property
    def file_name(self) -> str:
        """Where the entry lies below the leaderboards' folder."""
        return entry_path(self.family.id, self.agent.name, self.budget)

    def json_text(self) -> str:
        """The content of its file: lists of plain values on one line each."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)
        return LIST_OF_PLAIN_VALUES.sub(lambda found: "[" + re.sub(r",\n *", ", ", found[1]) + "]", text) + "\n"

    def aggregate(self, split: str, deterministic: bool, episode: int) -> Aggregate | None:
        """The aggregate of one split in one episode, counted from 1; None where the family has no such split."""
        wanted = (split, deterministic, episode)
        return next((entry for entry in self.aggregates if (entry.split, entry.deterministic, entry.episode) == wanted), None)


def entry_path(family: str, agent: str, budget: str) -> str:
    """`<family>/<agent>--<budget>.json`, the family without namespace and version."""
    return f"{family.rpartition('/')[2].rpartition('-v')[0]}/{agent}--{budget}.json"


def make_entry(runs: Sequence[Result], agent: PublishedAgent, reference: tuple[float, float] | None, about: About | None = None) -> Entry:
    """The entry of runs that differ in nothing but the seed; `about` is today's date and nothing else unless given."""
    ordered = tuple(sorted(runs, key=lambda run: run.seed))
    first = ordered[0]
    entry = Entry(
        family=FamilyRecord(id=first.family.id, digest=first.family.digest, reference=reference),
        agent=agent,
        about=About() if about is None else about,
        budget=first.budget,
        budget_steps=steps_of_budget(ordered, agent),
        seeds=tuple(run.seed for run in ordered),
        mean_environment_steps=float(np.mean([run.environment_steps for run in ordered])),
        mean_minutes=float(np.mean([run.wall_seconds.total for run in ordered])) / 60.0,
        intervals=Intervals(),
        aggregates=aggregates(ordered, reference),
        runs=ordered,
        content_digest="",
    )
    return entry.model_copy(update={"content_digest": content_digest(entry)})


def remake(entry: Entry, reference: tuple[float, float] | None) -> Entry:
    """The entry made again from its own runs, with these reference scores."""
    return make_entry(entry.runs, entry.agent, reference, entry.about)


def steps_of_budget(runs: Sequence[Result], agent: PublishedAgent) -> Literal["standard", "none", "other"]:
    """Whether training takes the environment steps of the budget's standard schedule, to within 2 %.

    By the agent's own schedule where it has one, since episodes that end early are nobody's merit; else by what was recorded.
    """
    first = runs[0]
    if not any(run.environment_steps for run in runs):
        return "none"
    family = load_family(first.family.id)
    expected = standard_steps(family, first.budget)
    config = agent.resolved()
    taken = [steps_until(config, family, run.iterations) for run in runs] if config else [run.environment_steps for run in runs]
    return "standard" if all(math.isclose(steps, expected, rel_tol=SAME_STEPS) for steps in taken) else "other"


def standard_steps(family: FamilyCard, budget: str) -> int:
    """Environment steps of a budget's standard schedule on a family, if no episode ends early."""
    config = resolve_agent(load_agent(SCHEDULED_AS), family.name, budget)
    return steps_until(config, family, config.schedule.iterations)


def aggregates(runs: Sequence[Result], reference: tuple[float, float] | None) -> tuple[Aggregate, ...]:
    """Every aggregate of runs with the same splits, tasks and episodes, in the order of the first run's."""
    found = []
    for matrix in runs[0].final:
        scores = [run.matrix(matrix.split, matrix.deterministic).scores(reference) for run in runs]
        returns, success = np.stack([entry.returns for entry in scores]), np.stack([entry.success for entry in scores]).astype(float)
        for episode in range(scores[0].episodes):
            estimates = measures(returns, success, reference, episode)
            found.append(
                Aggregate(
                    split=matrix.split,
                    deterministic=matrix.deterministic,
                    episode=episode + 1,
                    returns=estimates["return"],
                    success=estimates["success"],
                    normalised=estimates.get("normalised"),
                    regret=estimates.get("regret"),
                )
            )
    return tuple(found)


def content_digest(entry: Entry) -> str:
    """SHA-256 of the entry's canonical JSON without this digest."""
    content = entry.model_dump(mode="json", exclude={"content_digest"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def entry_schema() -> str:
    """The published JSON Schema of an entry (`docs/leaderboard.schema.json`)."""
    return json.dumps(Entry.model_json_schema(mode="serialization"), indent=2) + "\n"


def read_entry(path: Path) -> Entry:
    """Read one entry; raises `CardError` for a file that is unreadable, of another format version or of another schema."""
    return read_versioned(path, Entry, ENTRY_FORMAT_VERSION, "leaderboard entry")


def entry_files(folder: Path) -> list[Path]:
    """Every file below the leaderboards' folder but its page and the register of digests, sorted."""
    if not folder.is_dir():
        raise CardError(f"{folder}: no such folder; leaderboards lie in <folder>/<family>/<agent>--<budget>.json")
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in (folder / README, folder / REGISTER))


def read_entries(folder: Path | None = None) -> list[Entry]:
    """All entries of a leaderboards folder, the published one unless given; raises `CardError`."""
    return [read_entry(path) for path in entry_files(register_folder("leaderboards") if folder is None else folder)]
