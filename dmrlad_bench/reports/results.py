"""`result.json`: its model, its schema, and reading it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.cards.reading import parse_json
from dmrlad_bench.reports.scores import TrialScores

if TYPE_CHECKING:
    from pandas import DataFrame

RESULT_FILE = "result.json"
FORMAT_VERSION = 2
Model = TypeVar("Model", bound=BaseModel)
AGENT_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")
Budget = Literal["smoke", "quick", "standard", "full"]
Count = Annotated[int, Field(ge=0, le=10**15)]
Return = Annotated[float, Field(ge=-1e12, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]
Elapsed = Annotated[float, Field(ge=0, le=1e12)]


class ResultModel(BaseModel):
    """Base of the result's parts: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FamilyRecord(ResultModel):
    """What was solved."""

    id: str = Field(pattern=r"^DMRLAD/[A-Za-z0-9]+-v[0-9]+$")
    digest: str = Field(description="SHA-256 of everything on the card that changes results")
    reference: tuple[float, float] | None = Field(
        description="mean return of one episode of (blind, oracle), the ends of the normalised score"
    )


class AgentRecord(ResultModel):
    """Who solved it."""

    name: str = Field(pattern=AGENT_NAME.pattern)
    digest: str = Field(description="SHA-256 of the resolved configuration")
    track: Literal["standard", "privileged"] = Field(
        description="privileged: while scored, it is shown the task, or is handed reward function or task list"
    )


class CurveScores(ResultModel):
    """Means over the tasks of one split, one entry for each episode of the trial."""

    returns: tuple[Return, ...] = Field(min_length=1)
    success: tuple[Share, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _same_length(self) -> CurveScores:
        if len(self.returns) != len(self.success):
            raise ValueError("returns and success must have an entry for each episode")
        return self


class CurvePoint(ResultModel):
    """One evaluation while training: deterministic actions."""

    iteration: Count
    environment_steps: Count
    gradient_updates: Count
    seconds: Elapsed = Field(description="wall seconds of the run so far")
    scores: dict[str, CurveScores]


class TrialMatrix(ResultModel):
    """The final scores of one split: for each task its trials, and for each trial its episodes."""

    split: Literal["train", "validation", "test", "ood"]
    deterministic: bool
    task_index: tuple[int, ...] = Field(min_length=1)
    returns: tuple[tuple[tuple[Return, ...], ...], ...] = Field(description="tasks x trials x episodes")
    success: tuple[tuple[tuple[bool, ...], ...], ...] = Field(description="tasks x trials x episodes")

    def __repr__(self) -> str:
        return f"TrialMatrix({self.scores(None)!r})"

    __str__ = __repr__

    @model_validator(mode="after")
    def _same_shape(self) -> TrialMatrix:
        shapes = {(len(trials), len(trial)) for rows in (self.returns, self.success) for trials in rows for trial in trials}
        if len(shapes) != 1 or not all(next(iter(shapes))) or {len(self.returns), len(self.success)} != {len(self.task_index)}:
            raise ValueError("returns and success must have an entry for each task, each trial (as many in all tasks) and each episode")
        return self

    @classmethod
    def of(cls, scores: TrialScores) -> TrialMatrix:
        """The record of `scores`."""
        return cls(
            split=scores.split,  # pyright: ignore[reportArgumentType]
            deterministic=scores.deterministic,
            task_index=tuple(scores.task_index.tolist()),
            returns=scores.trial_returns.tolist(),
            success=scores.trial_success.tolist(),
        )

    def scores(self, reference: tuple[float, float] | None) -> TrialScores:
        """The scores as arrays."""
        return TrialScores(
            self.split, self.deterministic, np.array(self.task_index), np.array(self.returns), np.array(self.success), reference
        )


class Seconds(ResultModel):
    """Wall seconds of the run, all its sittings together."""

    total: Elapsed
    phases: dict[str, Elapsed] = Field(description="collect, relabel, reconstruct, re-infer, improve, evaluate, save, ...")


class Host(ResultModel):
    """Where it ran."""

    system: str
    machine: str
    processor: str
    cores: int
    accelerator: str | None


class Sitting(ResultModel):
    """The thread counts that a run went on with. Other threads of torch change last digits; those of the simulation, only times."""

    after_iteration: int = Field(description="iterations that were done before")
    threads: int = Field(description="of torch")
    simulation_threads: int


LATER = ("simulation_threads", "sittings")  # keys that came after the first published results: not written where they say nothing


class Result(ResultModel):
    """One finished run: one agent, one family, one budget, one seed."""

    format_version: Literal[2] = FORMAT_VERSION
    family: FamilyRecord
    agent: AgentRecord
    budget: Budget
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    iterations: Count
    environment_steps: Count
    gradient_updates: Count
    wall_seconds: Seconds
    device: str
    threads: int = Field(description="of torch; where simulation_threads is not given, of the simulation, too")
    simulation_threads: int | None = None
    sittings: tuple[Sitting, ...] = Field(
        default=(), description="thread counts from the start on: a further one where a resume changed them"
    )
    host: Host
    packages: dict[str, str] = Field(description="versions of Python and of the packages that decide results")
    command: tuple[str, ...]
    curve: tuple[CurvePoint, ...]
    final: tuple[TrialMatrix, ...] = Field(min_length=1)

    @model_serializer(mode="wrap")
    def _without_later(self, plain: SerializerFunctionWrapHandler):  # a return type would replace the schema
        return {name: value for name, value in plain(self).items() if name not in LATER or value not in (None, [], ())}

    def __repr__(self) -> str:
        return f"Result({self.summary})"

    __str__ = __repr__

    @property
    def summary(self) -> str:
        """What the run was, in one line."""
        return f"{self.agent.name} on {self.family.id}, budget {self.budget}, seed {self.seed}, {self.environment_steps} environment steps"

    def _repr_html_(self) -> str:
        return self.html(self.summary)

    def html(self, title: str) -> str:
        """The final scores as an HTML table: a row for each split and kind of action, a column for each episode of the trial."""
        found = [matrix.scores(self.family.reference) for matrix in self.final]
        columns = ["tasks", "actions"]
        for what in ("return", "success"):
            columns += [f"{what} {episode + 1}" for episode in range(max(scores.episodes for scores in found))]
        rows = []
        for scores in found:
            gap = [""] * ((len(columns) - 2) // 2 - scores.episodes)
            returns, success = ([f"{value:.2f}" for value in values] for values in (scores.mean_returns, scores.success_rates))
            actions = "deterministic" if scores.deterministic else "stochastic"
            rows.append([f"{len(scores.returns)} {scores.split}", actions, *returns, *gap, *success, *gap])
        return html_table(title, columns, rows, ["mean return and share of successes by episode of the trial"])

    def to_pandas(self) -> DataFrame:
        """The learning curve, one row for each evaluation, split and episode.

        Columns: `iteration`, `environment_steps`, `gradient_updates`, `seconds`, `split`, `episode` (from 1), `return`, `success`; the last
        two are means over the tasks. A run that was never evaluated while training has no rows.
        """
        from pandas import DataFrame  # half a second that only those who ask for it pay

        columns = ["iteration", "environment_steps", "gradient_updates", "seconds", "split", "episode", "return", "success"]
        rows = []
        for point in self.curve:
            at = (point.iteration, point.environment_steps, point.gradient_updates, point.seconds)
            for split, scores in point.scores.items():
                pairs = zip(scores.returns, scores.success, strict=True)
                rows += [(*at, split, episode, reward, success) for episode, (reward, success) in enumerate(pairs, 1)]
        return DataFrame(rows, columns=columns)

    def matrix(self, split: str = "test", deterministic: bool = True) -> TrialMatrix:
        """The record of the final scores of one split; raises `CardError` where there is none."""
        for matrix in self.final:
            if (matrix.split, matrix.deterministic) == (split, deterministic):
                return matrix
        known = ", ".join(f"{matrix.split} {'deterministic' if matrix.deterministic else 'stochastic'}" for matrix in self.final)
        raise CardError(f"the result has no {'deterministic' if deterministic else 'stochastic'} scores of {split!r}; it has: {known}")

    def scores(self, split: str = "test", deterministic: bool = True) -> TrialScores:
        """The final scores of one split; raises `CardError` where there are none."""
        return self.matrix(split, deterministic).scores(self.family.reference)

    def json_bytes(self) -> bytes:
        """The content of `result.json`."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()


def result_schema() -> str:
    """The published JSON Schema of `result.json` (`docs/result.schema.json`)."""
    return json.dumps(Result.model_json_schema(mode="serialization"), indent=2) + "\n"


def read_result(path: Path | str) -> Result:
    """Read `result.json` by its path or by its run folder's.

    Raises:
        CardError: no such run, an unfinished run, another format version, or a file that is not whole.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULT_FILE
        if not path.exists():
            raise CardError(f"{path.parent}: no {RESULT_FILE}: not a run folder, or the run is unfinished (continue it with --resume)")
    return read_versioned(path, Result, FORMAT_VERSION, "result")


def read_versioned(path: Path, model: type[Model], accepted: int, what: str) -> Model:
    """Read a JSON file that says its `format_version`; raises `CardError` where it is unreadable, of another version or not a `model`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from None
    content = parse_json(text, str(path))
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != accepted:
        raise CardError(f"{path}: {what} of format version {version!r}; accepted: {accepted}")
    try:
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise CardError(f"{path}: {f'key {where!r}: ' if where else ''}{fault['msg'].removeprefix('Value error, ')}") from None
