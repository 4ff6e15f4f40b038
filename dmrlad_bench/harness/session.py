"""One sitting of a run: collect, learn, evaluate, save, log; from its start, or from a checkpoint, to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dmrlad_bench.agents.external import AgentFault
from dmrlad_bench.agents.interface import Metrics, Phases, Trials
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.amounts import collected
from dmrlad_bench.cards.writing import write_atomic
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.harness.agent import fitting, make_agent, print_notice
from dmrlad_bench.harness.checkpoint import (
    checkpoint_iterations,
    has_shards,
    load_checkpoint,
    load_shards,
    remove_replay,
    save_checkpoint,
    save_shard,
)
from dmrlad_bench.harness.collect import Environments, RollOut, roll_out
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.evaluate import score, splits_of, spread
from dmrlad_bench.harness.expected import title
from dmrlad_bench.harness.log import RunLog, evaluation_columns, scores_text
from dmrlad_bench.harness.machine import host, packages
from dmrlad_bench.harness.progress import RunProgress
from dmrlad_bench.harness.run import RunConfig
from dmrlad_bench.harness.slowed import Slowed
from dmrlad_bench.harness.threads import Threads
from dmrlad_bench.protocol import CURVE_SPLIT, SCORED_SPLITS, trials_of
from dmrlad_bench.reports.results import (
    RESULT_FILE,
    AgentRecord,
    CurvePoint,
    CurveScores,
    FamilyRecord,
    Result,
    Seconds,
    Sitting,
    TrialMatrix,
)
from dmrlad_bench.reports.scores import TrialScores


@dataclass
class Position:
    """How far a run has come: saved in every checkpoint, beside the agent and the generators."""

    command: list[str]
    iteration: int = 0
    environment_steps: int = 0
    gradient_updates: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    sittings: list[dict[str, int]] = field(default_factory=list)

    def check(self, iteration: int) -> None:
        """Raises `TypeError` or `ValueError` where this is none that the checkpoint of an iteration holds, as after an edit by hand."""
        for name, value in vars(Position([])).items():
            if type(found := getattr(self, name)) is not type(value):
                raise TypeError(f"position: {name} is a {type(found).__name__}")
        for point in self.curve:
            CurvePoint.model_validate(point)
        for phase, seconds in self.phases.items():
            if type(seconds) is not float:
                raise TypeError(f"position: the seconds of {phase!r} are a {type(seconds).__name__}")
        if self.iteration != iteration:
            raise ValueError(f"position: it is that of iteration {self.iteration}")


Watch = Callable[[tuple[CurvePoint, ...]], None]


class Session:
    """One sitting of a run: from its start, or from a checkpoint, to its end.

    `threads` are this sitting's; those of `config` are the first one's. `watch` is shown the curve after each iteration that added to
    it, once that is saved, and after a restart; what it raises ends the sitting.
    """

    def __init__(self, config: RunConfig, folder: Path, command: list[str], threads: Threads, watch: Watch | None = None) -> None:
        self._watch = watch
        self.config, self.folder = config, folder
        self.schedule, self.exploration = config.agent.schedule, config.agent.exploration
        self.family = TaskFamily(config.family)
        self.agent: Any = make_agent(config, self.family)
        self.learns = hasattr(self.agent, "learn")
        self.saves = hasattr(self.agent, "state_dict") or not self.learns
        self.iterations = self.schedule.iterations if self.learns else 0
        shown = getattr(self.agent, "task_observable", False)
        self.environments = Environments(self.family, shown, threads.simulation, config.agent.shown_while_training)
        self.threads, self._slowed = threads, Slowed()
        self._notices: list[str] = []  # what a user may want to know, beside what the agent says
        seeds = config.seeds()
        self.generators = {part: np.random.default_rng(seeds[part]) for part in ("environment", "tasks")}
        self.position = Position(command)
        self.environment_steps = 0  # those of the iteration under way included
        self.saved: int | None = None
        self._began = time.perf_counter()

    def start(self) -> None:
        """Take up the newest whole checkpoint, or write the first."""
        found = checkpoint_iterations(self.folder)
        for number, iteration in enumerate(found):
            try:
                self._restore(iteration)
                break
            except CardError as error:
                if number == len(found) - 1:
                    raise
                print_notice(f"{error}; falling back to iteration {found[number + 1]}")
        else:
            self._note_threads()
            self._save()
        self._note_threads()
        self.saved = self.position.iteration if self.saves else None

    def _note_threads(self) -> None:
        """Record this sitting's thread counts where they are not those of the last one that got any further."""
        position, config = self.position, self.config
        first = {"after_iteration": 0, "threads": config.threads, "simulation_threads": config.simulation_threads}  # of older checkpoints
        known = [sitting for sitting in position.sittings or [first] if sitting["after_iteration"] < position.iteration]
        here = {"threads": self.threads.torch, "simulation_threads": self.threads.simulation}
        if not known or {**known[-1], **here} != known[-1]:
            known.append({"after_iteration": position.iteration, **here})
        position.sittings = known

    def go(self, quiet: bool, bar: bool) -> None:
        """Every iteration that is left, the final protocol, and the result."""
        start = self.position.iteration, self.position.environment_steps
        progress = RunProgress(title(self.config), self.iterations, start, quiet=quiet, bar=bar)
        with RunLog(self.folder, start) as log, progress:
            if not self.saves:
                progress.line("the agent has no state_dict and load_state_dict: it is not saved, and a run that is stopped starts again")
            if start[0]:
                progress.line(f"continues after iteration {start[0]}")
            if isinstance(phases := getattr(self.agent, "phase_seconds", None), Phases):
                phases.told, phases.advanced = progress.phase, progress.updated
            said: set[str] = set()
            self._show_curve()
            while self.position.iteration < self.iterations:
                row = self._iterate(progress)
                log.iteration(row)
                for notice in sorted({*getattr(self.agent, "notices", ()), *self._notices} - said):
                    progress.line(notice)
                    said.add(notice)
                if self.saves:
                    self._save()
                progress.end(self.position.iteration, self.position.environment_steps, scores_text(row))
                self._show_curve()
            progress.line("final scores")
            self._finish()

    def _show_curve(self) -> None:
        if self._watch is not None:
            self._watch(tuple(map(CurvePoint.model_validate, self.position.curve)))

    def _iterate(self, progress: RunProgress) -> dict[str, float]:
        position, iteration = self.position, self.position.iteration + 1
        progress.begin(iteration, collected(self.config.agent, self.config.family, iteration).steps)
        with self._timed("collect"):
            rolled = self._collect(iteration, progress)
        assert rolled.trials is not None
        self.environment_steps = position.environment_steps + rolled.steps
        if not isinstance(getattr(self.agent, "phase_seconds", None), Phases):  # others say themselves what they begin
            progress.phase("learn-other")
        metrics, updates = self._learn(rolled.trials)
        position.gradient_updates += updates
        position.environment_steps, position.iteration = self.environment_steps, iteration
        row: dict[str, float] = {"iteration": iteration, "environment_steps": position.environment_steps}
        row |= {"gradient_updates": position.gradient_updates, "seconds": self._seconds()}
        row["charts/train_return"] = float(rolled.returns.mean())
        row["charts/train_success"] = float(rolled.success.mean())
        row |= {f"charts/seconds_{phase}": seconds for phase, seconds in position.phases.items()}
        row |= {name if "/" in name else f"losses/{name}": float(value) for name, value in metrics.items()}
        if iteration % self.schedule.evaluation_interval == 0 or iteration == self.iterations:
            progress.phase("evaluate")
            row |= evaluation_columns(CURVE_SPLIT, self._evaluate_while_training())
        with self._timed("save"):
            shard = self.agent.new_replay_shard() if hasattr(self.agent, "new_replay_shard") else None
            if shard is not None:
                with self._savable("new_replay_shard"):
                    position.shards[str(iteration)] = save_shard(self.folder, iteration, shard)
        return row

    def _collect(self, iteration: int, progress: RunProgress) -> RollOut:
        size, tasks = collected(self.config.agent, self.config.family, iteration), len(self.family.tasks("train"))
        if iteration <= self.exploration.initial_iterations:
            chosen = spread(size.tasks, tasks)
        else:
            chosen = np.sort(self.generators["tasks"].choice(tasks, size=size.tasks, replace=False))
        return roll_out(
            self.environments,
            self.agent,
            "train",
            np.repeat(chosen, size.trials_per_task),
            episodes=size.episodes,
            generator=self.generators["environment"],
            deterministic=False,
            training_iteration=iteration,
            keep=True,
            told=progress.collected,
        )

    def _learn(self, trials: Trials) -> tuple[Metrics, int]:
        """Run the agent's own iteration; its seconds by phase and the number of its gradient updates are read off it."""
        before, updates = dict(getattr(self.agent, "phase_seconds", {})), getattr(self.agent, "gradient_updates", 0)
        began, worked = time.perf_counter(), time.process_time()
        metrics = self.agent.learn(trials)
        left, worked = time.perf_counter() - began, time.process_time() - worked
        alone = self.config.device == "cpu" and self.config.agent.import_path is None  # others may wait for a GPU or processes of their own
        if alone and (slowed := self._slowed.add(left, worked)):
            self._notices.append(slowed)
        for phase, seconds in getattr(self.agent, "phase_seconds", {}).items():
            spent = seconds - before.get(phase, 0.0)
            self._count(phase, spent)
            left -= spent
        self._count("learn-other", max(0.0, left))  # an agent may claim more seconds than have passed
        return metrics, getattr(self.agent, "gradient_updates", 0) - updates

    def _evaluate_while_training(self) -> TrialScores:
        with self._timed("evaluate"):
            scores = self._score(CURVE_SPLIT, deterministic=True, tasks=self.schedule.evaluation_tasks)
        self._add_to_curve(scores)
        return scores

    def _score(self, split: str, deterministic: bool, tasks: int) -> TrialScores:
        seed, trials = self.config.evaluation_seed(self.position.iteration, split, deterministic), self.schedule.final_trials
        options = {"deterministic": deterministic, "tasks": tasks, "trials": trials_of(split, trials)}
        scores = score(self.environments, self.agent, split, seed, **options)
        if not np.isfinite(scores.returns).all():
            where = f"iteration {self.position.iteration}, split {split!r}"
            raise RunFailed(f"{self.folder}: stopped: a return of the evaluation in {where} is not finite")
        return scores

    def _add_to_curve(self, scores: TrialScores) -> None:
        position = self.position
        means = CurveScores(returns=tuple(scores.mean_returns.tolist()), success=tuple(scores.success_rates.tolist()))
        point = CurvePoint(
            iteration=position.iteration,
            environment_steps=position.environment_steps,
            gradient_updates=position.gradient_updates,
            seconds=self._seconds(),
            scores={scores.split: means},
        )
        position.curve.append(point.model_dump(mode="json"))

    def _finish(self) -> None:
        with self._timed("evaluate"):
            tasks = self.schedule.final_tasks
            splits = (CURVE_SPLIT,) if self.config.tuning else splits_of(self.family, SCORED_SPLITS)
            finals = [self._score(split, deterministic=True, tasks=tasks) for split in splits]
            if not self.config.tuning:
                finals.append(self._score("test", deterministic=False, tasks=tasks))
        if not self.position.curve:  # an agent that does not learn
            self._evaluate_while_training()
        config, position, family = self.config, self.position, self.family
        reference = finals[0].reference
        result = Result(
            family=FamilyRecord(id=family.id, digest=family.digest, reference=reference),
            agent=AgentRecord(name=config.agent.name, digest=config.agent.digest, track=config.agent.track),
            budget=config.budget,
            seed=config.seed,
            iterations=self.iterations,
            environment_steps=position.environment_steps,
            gradient_updates=position.gradient_updates,
            wall_seconds=Seconds(total=self._seconds(), phases=position.phases),
            device=config.device,
            threads=config.threads,
            simulation_threads=config.simulation_threads,
            sittings=tuple(Sitting.model_validate(sitting) for sitting in position.sittings),
            host=host(config.device),
            packages=packages(),
            command=tuple(position.command),
            curve=tuple(CurvePoint.model_validate(point) for point in position.curve),
            final=tuple(TrialMatrix.of(scores) for scores in finals),
        )
        write_atomic(self.folder / RESULT_FILE, result.json_bytes())
        remove_replay(self.folder)

    def _save(self) -> None:
        with self._timed("save"):
            position = asdict(self.position) | {"seconds": self._seconds()}
            state = {
                "position": position,
                "generators": {name: generator.bit_generator.state for name, generator in self.generators.items()},
                "agent": self.agent.state_dict() if hasattr(self.agent, "state_dict") else None,
            }
            with self._savable("state_dict"):
                save_checkpoint(self.folder, self.position.iteration, state)
            self.saved = self.position.iteration

    @contextmanager
    def _savable(self, method: str) -> Iterator[None]:
        """What an agent of anyone's gave to be saved and cannot be is its fault."""
        try:
            yield
        except TypeError as error:
            raise AgentFault(f"agent {self.config.agent.import_path or self.config.agent.name!r}: {method}: {error}") from None

    def _restore(self, iteration: int) -> None:
        state = load_checkpoint(self.folder, iteration)
        with fitting(self.folder, iteration):
            position = Position(**state["position"])
            position.check(iteration)
            without_replay = iteration >= self.iterations and not has_shards(self.folder, position.shards)  # its result was lost: score it
            if hasattr(self.agent, "load_replay_shards") and not without_replay:
                if str(iteration) in position.shards:  # the one shard that an older checkpoint can do without
                    next(load_shards(self.folder, {str(iteration): position.shards[str(iteration)]}))
                self.agent.load_state_dict(state["agent"])
                self.agent.load_replay_shards(load_shards(self.folder, position.shards))
            elif hasattr(self.agent, "load_state_dict"):
                self.agent.load_state_dict(state["agent"])
            for name, generator in self.generators.items():
                generator.bit_generator.state = state["generators"][name]
        self.position, self.environment_steps = position, position.environment_steps
        self._began = time.perf_counter() - position.seconds

    def _seconds(self) -> float:
        """Wall seconds of the run, earlier sittings included."""
        return time.perf_counter() - self._began

    def _count(self, phase: str, seconds: float) -> None:
        self.position.phases[phase] = self.position.phases.get(phase, 0.0) + seconds

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._count(phase, time.perf_counter() - began)
