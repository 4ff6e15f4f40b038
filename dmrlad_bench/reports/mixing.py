"""What must be the same among runs that are compared, and the groups that they form."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dmrlad_bench.cards import CardError
from dmrlad_bench.protocol import normalised
from dmrlad_bench.reports.bounds import ends_early
from dmrlad_bench.reports.reading import RecordedRun, published_family, reference_of
from dmrlad_bench.reports.scores import TrialScores

SHOWN_DIGITS = 8


@dataclass(frozen=True)
class View:
    """Which of the final scores are compared."""

    split: str = "test"
    deterministic: bool = True

    def scores(self, run: RecordedRun) -> TrialScores:
        """The run's scores; raises `CardError` where it has none of these."""
        try:
            return run.result.scores(self.split, self.deterministic)
        except CardError as error:
            raise CardError(f"{run.source}: {error}") from None

    def __str__(self) -> str:
        return f"{self.split} tasks, {'deterministic' if self.deterministic else 'stochastic'} actions"


@dataclass(frozen=True, repr=False)
class Group:
    """The runs of one agent on one family: everything but the seed is the same.

    Attributes:
        label: the agent's name, with what tells it from others of its name where mixing was allowed.
        family: the family's id.
        runs: by seed.
        view: which scores.
        reference: returns of (blind, oracle), or None.
        agent: the label before anybody renamed it: what colour and marker go by.
    """

    label: str
    family: str
    runs: tuple[RecordedRun, ...]
    view: View
    reference: tuple[float, float] | None
    agent: str = ""

    def __repr__(self) -> str:
        return f"Group({self.label!r} on {self.family}, seeds {', '.join(map(str, self.seeds))}; {self.view})"

    @cached_property
    def returns(self) -> np.ndarray:
        """`(seeds, tasks, K)`."""
        return np.stack([self.view.scores(run).returns for run in self.runs])

    @cached_property
    def success(self) -> np.ndarray:
        """`(seeds, tasks, K)` float, 0 or 1."""
        return np.stack([self.view.scores(run).success for run in self.runs]).astype(float)

    @property
    def normalised(self) -> np.ndarray | None:
        """`(seeds, tasks, K)` (return - blind) / (oracle - blind), or None without reference."""
        return None if self.reference is None else self.normalise(self.returns)

    def normalise(self, returns: np.ndarray) -> np.ndarray:
        """Returns as normalised scores; as they are where there is no reference."""
        if self.reference is None:
            return returns
        return normalised(returns, self.reference)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The runs' seeds, ascending."""
        return tuple(run.result.seed for run in self.runs)

    @property
    def track(self) -> str:
        """`standard` or `privileged`."""
        return self.runs[0].result.agent.track

    @property
    def budget(self) -> str:
        """The runs' budget."""
        return self.runs[0].result.budget

    @property
    def episodes(self) -> int:
        """K, consecutive episodes in a task."""
        return self.returns.shape[2]

    @property
    def environment_steps(self) -> float:
        """Mean over seeds."""
        return float(np.mean([run.result.environment_steps for run in self.runs]))

    @property
    def minutes(self) -> float:
        """Mean wall minutes over seeds."""
        return float(np.mean([run.result.wall_seconds.total for run in self.runs])) / 60.0


@dataclass(frozen=True)
class Field:
    """Something that must be the same among all runs whose `scope` is the same.

    Attributes:
        name: in messages.
        of: its value in a run.
        scope: what the runs have in common.
        shown: the value in labels.
    """

    name: str
    of: Callable[[RecordedRun], Any]
    scope: Callable[[RecordedRun], Any]
    shown: Callable[[Any], str] = str


def fields_of(view: View) -> tuple[Field, ...]:
    """Everything that decides whether two runs can stand in one table."""

    def family(run: RecordedRun) -> str:
        return run.result.family.id

    def configured(run: RecordedRun) -> tuple[str, str, str]:
        return family(run), run.result.agent.name, run.result.budget

    return (
        Field("budget", lambda run: run.result.budget, lambda run: None),
        Field("episodes of the trial", lambda run: view.scores(run).episodes, lambda run: None, lambda value: f"K = {value}"),
        Field("family digest", lambda run: run.result.family.digest, family, lambda value: f"family {value[:SHOWN_DIGITS]}"),
        Field("reference scores", lambda run: reference_of(run.result), family, lambda value: f"reference {value}"),
        Field(f"{view.split} tasks", lambda run: tuple(view.scores(run).task_index.tolist()), family, lambda value: f"{len(value)} tasks"),
        Field("track", lambda run: run.result.agent.track, configured),
        Field("environment steps", _steps, lambda run: (family(run), run.result.environment_steps > 0), lambda value: f"{value} steps"),
        Field("agent digest", lambda run: run.result.agent.digest, configured, lambda value: f"agent {value[:SHOWN_DIGITS]}"),
    )


def _steps(run: RecordedRun) -> int | None:
    """Environment steps of a run whose budget decides them; None where episodes may end early."""
    card = published_family(run.result)
    early = card is None or (ends_early(card))
    return None if early else run.result.environment_steps


def differences(runs: Sequence[RecordedRun], view: View) -> list[tuple[str, RecordedRun, RecordedRun]]:
    """Fields that differ where they must not, each with the first two runs that show it."""
    found = []
    for field in fields_of(view):
        first: dict[Any, RecordedRun] = {}
        for run in runs:
            known = first.setdefault(field.scope(run), run)
            if field.of(known) != field.of(run):
                values = (f"{_shortened(field.of(one))} in {one.source}" for one in (known, run))
                found.append((f"{field.name} differs: {' but '.join(values)}", known, run))
                break
    return found


def grouped(runs: Sequence[RecordedRun], view: View, allow_mixed: bool) -> tuple[list[Group], list[str]]:
    """Group runs by agent and family.

    Returns:
        The groups in the order in which their agents and families first come, and what was mixed, a line each.

    Raises:
        CardError: the same run twice; or, unless `allow_mixed`, a field that differs.
    """
    mixed = differences(runs, view)
    if mixed and not allow_mixed:
        raise CardError(f"{mixed[0][0]}; compare like with like, or pass --allow-mixed to mark the table")
    fields = fields_of(view)
    members: dict[tuple[Any, ...], list[RecordedRun]] = {}
    for run in runs:
        key = (run.result.family.id, run.result.agent.name, *(field.of(run) for field in fields))
        members.setdefault(key, []).append(run)
    families = list(dict.fromkeys(run.result.family.id for run in runs))
    names = list(dict.fromkeys(run.result.agent.name for run in runs))
    groups = []
    for key in sorted(members, key=lambda key: (families.index(key[0]), names.index(key[1]))):
        ordered = tuple(sorted(members[key], key=lambda run: run.result.seed))
        for one, other in itertools.pairwise(ordered):
            if one.result.seed == other.result.seed:
                what = f"{key[1]} on {key[0]}, budget {one.result.budget}, seed {one.result.seed}"
                raise CardError(f"{what} is there twice: {one.source} and {other.source}")
        told = [field.shown(field.of(ordered[0])) for field in fields if _varies(field, ordered[0], runs)]
        label = f"{key[1]} ({', '.join(told)})" if told else key[1]
        groups.append(Group(label, key[0], ordered, view, reference_of(ordered[0].result), label))
    return groups, [message for message, _, _ in mixed]


def _varies(field: Field, run: RecordedRun, runs: Sequence[RecordedRun]) -> bool:
    return any(field.scope(other) == field.scope(run) and field.of(other) != field.of(run) for other in runs)


def _shortened(value: Any) -> str:
    text = str(value)
    return repr(value) if len(text) <= 70 else f"{text[:60]}..."
