"""Tuning an agent on a family's validation tasks with Optuna: a study in a folder, resumable after any end. No test task is ever scored.

A trial is a set of values, and trains a run for each seed; its objective is the mean return over validation tasks in the last episode,
at the end of training, mean over seeds. A trial whose validation curve lies below the median of those before it is pruned.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmrlad_bench.cards import CardError, load_agent, load_family
from dmrlad_bench.cards.search import Searched, search_space
from dmrlad_bench.harness.api import draft
from dmrlad_bench.harness.checkpoint import remove_replay
from dmrlad_bench.harness.errors import Interrupted, RunFailed, Stopped
from dmrlad_bench.harness.expected import iterations
from dmrlad_bench.harness.run import RunConfig
from dmrlad_bench.harness.study import FINISHED, Study
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.protocol import CURVE_SPLIT
from dmrlad_bench.reports.results import CurvePoint
from dmrlad_bench.reports.tuning_tables import TrialRecord

if TYPE_CHECKING:
    from optuna.trial import Trial

TRIALS_FOLDER = "trials"
DIGITS = 3  # significant ones of a number that is tried: what is tried is what a card says
WARM_UP = 0.25  # share of a run's iterations before which nothing is pruned
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class TuningPlan:
    """What is tuned, and where.

    Attributes:
        agent: preset's name, TOML file or `package.module:Class`.
        env: the family.
        budget: of every run.
        seeds: runs of a trial, of the seeds 0, 1, ...
        folder: of the study.
        device, threads: of the runs.
        command: what the user typed.
        base: the first run's configuration, no value of the search in it.
        space: the tuned keys.
    """

    agent: str
    env: str
    budget: str
    seeds: int
    folder: Path
    device: str
    threads: int | None
    command: tuple[str, ...]
    base: RunConfig
    space: tuple[Searched, ...]

    @property
    def name(self) -> str:
        """The study's."""
        return f"{self.base.agent.name}--{self.base.family.name}--{self.budget}"

    @property
    def facts(self) -> dict[str, Any]:
        """What makes two calls the same study."""
        return {
            "agent digest": self.base.agent.digest,
            "family digest": self.base.family.digest,
            "seeds": self.seeds,
            "search space": "; ".join(f"{searched.key}: {searched.told()}" for searched in self.space),
        }


def plan_tuning(
    agent: str,
    env: str,
    *,
    budget: str = "quick",
    seeds: int = 1,
    out: Path | None = None,
    device: str = "auto",
    threads: int | None = 1,
    command: tuple[str, ...] = ("dmrlad-bench", "tune"),
) -> TuningPlan:
    """Check everything before anything is trained or written.

    Raises:
        CardError: an unknown agent, family or budget, a bad number, an agent that does not learn or whose card does
            not say what is tuned.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise CardError(f"seeds: expected {'at least 1' if seeds < 1 else f'at most {MOST_SEEDS}'}, got {seeds}")
    base = draft(agent, env, budget=budget, device=device, threads=threads).drafted
    if not iterations(base.agent):
        raise CardError(f"agent {base.agent.name!r} does not learn: there is nothing to tune")
    space = search_space(load_agent(agent), load_family(env).name, budget)
    folder = Path("tuning") / base.family.name / f"{base.agent.name}--{budget}" if out is None else out
    return TuningPlan(agent, env, budget, seeds, folder, device, threads, command, base, space)


def tune_here(plan: TuningPlan, trials: int, say: Callable[[str], None]) -> None:
    """Run trials in this process until the study has `trials` of them, those that others run counted.

    Raises:
        CardError: the study's folder cannot be used.
        RunFailed: the disk is full.
        KeyboardInterrupt: a trial that was under way is taken up by the next call.
    """
    study = open_study(plan)
    while (trial := study.next_trial(trials)) is not None:
        values = suggested(trial, plan.space)
        say(f"trial {trial.number}: {', '.join(f'{key} = {_text(value)}' for key, value in values.items())}")
        try:
            value = _objective(plan, trial, values)
        except Stopped as error:
            study.end(trial, "pruned", note=str(error))
            for folder in _run_folders(plan, trial.number):
                remove_replay(folder)
            say(f"trial {trial.number}: {error}")
        except RunFailed as error:
            if isinstance(error.__cause__, OSError):  # the machine's fault, not the values'
                raise
            study.end(trial, "failed", note=str(error))
            say(f"trial {trial.number}: failed: {error}")
        else:
            study.end(trial, "complete", value)
            say(f"trial {trial.number}: return {value:.4g} on validation tasks")
        finally:
            gc.collect()  # as in a matrix: what is left of a run would lie beside the next one's replay


def open_study(plan: TuningPlan) -> Study:
    """The study of a plan, a new one where there is none; raises `CardError`."""
    warm_up = int(WARM_UP * iterations(plan.base.agent))
    return Study(plan.folder, plan.name, plan.facts, warm_up)


def records(plan: TuningPlan, study: Study) -> list[TrialRecord]:
    """Every trial of the study that has ended, by number."""
    found = []
    for trial in study.trials():
        if trial.state.name not in FINISHED:
            continue
        values = {one.key: _used(one, trial.params[one.key]) for one in plan.space if one.key in trial.params}
        curve = sorted(trial.intermediate_values.items())
        state = FINISHED[trial.state.name]
        value = trial.value if state == "complete" else curve[-1][1] if curve else None
        found.append(TrialRecord(trial.number, state, value, len(curve), values, str(trial.user_attrs.get("note", ""))))
    return found


def suggested(trial: Trial, space: tuple[Searched, ...]) -> dict[str, Any]:
    """The trial's value of every key: drawn, or what the trial had before it was killed."""
    values: dict[str, Any] = {}
    for one in space:
        low, high, log = one.dimension.low, one.dimension.high, one.dimension.log
        if one.dimension.choices is not None:
            drawn: Any = trial.suggest_categorical(one.key, [json.dumps(value) for value in one.dimension.choices])
        else:
            assert low is not None and high is not None
            drawn = (
                trial.suggest_int(one.key, int(low), int(high), log=log)
                if one.kind == "int"
                else trial.suggest_float(one.key, low, high, log=log)
            )
        values[one.key] = _used(one, drawn)
    return values


def _used(one: Searched, drawn: Any) -> Any:
    """What a run gets of what Optuna drew: a choice, or a number of few digits within the bounds."""
    if one.kind == "choice":
        return json.loads(drawn)
    low, high = one.dimension.low, one.dimension.high
    assert low is not None and high is not None
    return int(drawn) if one.kind == "int" else min(max(float(f"{drawn:.{DIGITS}g}"), float(low)), float(high))


def _objective(plan: TuningPlan, trial: Trial, values: dict[str, Any]) -> float:
    overrides = tuple(f"{key}={_text(value)}" for key, value in values.items())
    finals = []
    for seed in range(plan.seeds):
        try:
            options: dict[str, Any] = {"budget": plan.budget, "device": plan.device, "threads": plan.threads, "overrides": overrides}
            drafted = draft(plan.agent, plan.env, seed=seed, out=_trial_folder(plan, trial.number), resume=True, **options)
        except CardError as error:  # values that do not go together, or a batch too large for this machine
            raise RunFailed(str(error)) from None
        config = drafted.config().model_copy(update={"tuning": True})
        watch = _Pruning(trial, seed, iterations(config.agent))
        run = train_run(config, drafted.folder, resume=True, command=list(plan.command), quiet=True, watch=watch)
        finals.append(float(run.result.scores(CURVE_SPLIT).mean_returns[-1]))
    return float(np.mean(finals))


class _Pruning:
    """Reports a run's validation curve to the study, and stops the run where the pruner says so.

    A trial's second seed counts its iterations on from the end of the first, so that each is held against the same seed of other trials.
    """

    def __init__(self, trial: Trial, seed: int, last: int) -> None:
        self.trial, self.offset, self.last = trial, seed * last, last
        self.reported = set(trial.study._storage.get_trial(trial._trial_id).intermediate_values)

    def __call__(self, curve: tuple[CurvePoint, ...]) -> None:
        for point in curve:
            step = self.offset + point.iteration
            if step not in self.reported:
                self.trial.report(point.scores[CURVE_SPLIT].returns[-1], step)
                self.reported.add(step)
        if curve and curve[-1].iteration < self.last and self.trial.should_prune():  # what is trained to its end is scored
            value = curve[-1].scores[CURVE_SPLIT].returns[-1]
            raise Stopped(f"pruned at return {value:.4g} after iteration {curve[-1].iteration} of {self.last}")


def _trial_folder(plan: TuningPlan, number: int) -> Path:
    return plan.folder / TRIALS_FOLDER / f"{number:04d}"


def _run_folders(plan: TuningPlan, number: int) -> list[Path]:
    return [path.parent for path in sorted(_trial_folder(plan, number).glob("*/*/config.toml"))]


def _text(value: Any) -> str:
    return json.dumps(value)  # which is TOML for numbers, booleans, strings and lists of them


def say_on_stderr(line: str) -> None:
    """Progress of a study."""
    print(line, file=sys.stderr, flush=True)


def interrupted(plan: TuningPlan) -> Interrupted:
    """What an interrupted tuning ends with."""
    return Interrupted(f"interrupted: the study and its runs are saved in {plan.folder}; continue with the same command")
