"""A result of an agent that something else trained: scored by the whole protocol, recorded as a run is, compared and submitted as one."""

from __future__ import annotations

import math
import re
import sys
import time
from pathlib import Path
from typing import Any

from dmrlad_bench.agents.external import NEEDED
from dmrlad_bench.cards import CardError, load_agent, resolve_agent
from dmrlad_bench.cards.reading import validate
from dmrlad_bench.cards.writing import write_atomic
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.harness.api import ENV
from dmrlad_bench.harness.collect import Environments
from dmrlad_bench.harness.evaluate import score, splits_of
from dmrlad_bench.harness.expected import steps_of_schedule
from dmrlad_bench.harness.machine import host, packages
from dmrlad_bench.harness.run import CONFIG_FILE, RunConfig, check_folder, locked, run_name
from dmrlad_bench.harness.threads import threads_for
from dmrlad_bench.protocol import CURVE_SPLIT, SCORED_SPLITS
from dmrlad_bench.reports.results import (
    RESULT_FILE,
    AgentRecord,
    CurvePoint,
    CurveScores,
    FamilyRecord,
    Result,
    Seconds,
    TrialMatrix,
)
from dmrlad_bench.reports.scores import TrialScores

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def record(
    agent: Any,
    env: str | Path | TaskFamily = ENV,
    *,
    name: str,
    environment_steps: int,
    seed: int = 0,
    budget: str = "quick",
    gradient_updates: int = 0,
    seconds: float = 0.0,
    threads: int | None = None,
    out: Path | str | None = None,
) -> Result:
    """Score an agent that was trained elsewhere by the whole protocol, and record it as a finished run.

    Its curve has one point, the end of training. Where it took as many environment steps as the budget has on the family, it stands in
    the tables of that budget; otherwise `compare` needs `allow_mixed`, and `submit` refuses it.

    Args:
        agent: an object with `begin_trial`, `act` and `observe`; its class is recorded as `module:Class`.
        env: the family: id, bare name, TOML file or the family itself.
        name: what tables call it: lower-case words, digits and single hyphens.
        environment_steps: what it was trained on, all tasks and evaluations of its own together; 0 for one that does not learn.
        seed: of its training; the protocol's draws follow from it, too.
        budget: `smoke`, `quick`, `standard` or `full`, whose table it is for.
        gradient_updates: optimiser steps of its training.
        seconds: that its training took; those of the scoring are added.
        threads: of the simulation; None = as many as there are cores allowed.
        out: write a run folder `out/<family>/<name>--<budget>--seed<N>`, which `compare` and `submit` take; none unless given.

    Raises:
        CardError: no agent, a bad name or number, an unknown family or budget, or a run folder that is not empty.
    """
    _check(agent, name, {"environment_steps": environment_steps, "gradient_updates": gradient_updates, "seed": seed}, seconds)
    solved = env if isinstance(env, TaskFamily) else family(env)
    config = _config(agent, solved, name, budget, seed, threads)
    folder = None if out is None else Path(out) / solved.name / run_name(name, budget, seed)
    if folder is not None:
        check_folder(config, folder, resume=False)
    iterations = config.agent.schedule.iterations if environment_steps == steps_of_schedule(config.agent, solved.card) else 0
    result = _result(agent, solved, config, iterations, environment_steps, gradient_updates, seconds)
    if folder is not None:
        with locked(folder):
            check_folder(config, folder, resume=False)
            write_atomic(folder / CONFIG_FILE, config.toml())
            write_atomic(folder / RESULT_FILE, result.json_bytes())
    return result


def _check(agent: Any, name: str, counts: dict[str, int], seconds: float) -> None:
    missing = [method for method in NEEDED if not callable(getattr(agent, method, None))]
    if missing:
        raise CardError(f"agent {type(agent).__name__}: has no {', '.join(missing)}; an agent has begin_trial, act and observe")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CardError(f"name {name!r}: expected lower-case words, digits and single hyphens, as my-agent")
    for key, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise CardError(f"{key}: expected a whole number from 0 on, got {value!r}")
    if not math.isfinite(seconds) or seconds < 0:
        raise CardError(f"seconds: expected a number from 0 on, got {seconds!r}")


def _config(agent: Any, solved: TaskFamily, name: str, budget: str, seed: int, threads: int | None) -> RunConfig:
    """What is recorded of the agent: its class, and the schedule of the budget, evaluated once."""
    made = type(agent)
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    module = Path(main).stem if made.__module__ == "__main__" and main else made.__module__
    card = load_agent(f"{module}:{made.__name__}")
    resolved = resolve_agent(card, solved.name, budget)
    content = resolved.model_dump()
    content["name"], content["task_observable"] = name, bool(getattr(agent, "task_observable", False))
    content["track"] = "privileged" if content["task_observable"] else getattr(agent, "track", "standard")
    content["schedule"]["evaluation_interval"] = resolved.schedule.iterations
    taken = threads_for(None, threads, budget)
    return RunConfig(
        env=solved.id,
        budget=budget,  # pyright: ignore[reportArgumentType] - `resolve_agent` has looked at it
        seed=seed,
        device="cpu",
        threads=taken.torch,
        simulation_threads=taken.simulation,
        agent=validate(type(resolved), content, f"agent {name!r}"),
        family=solved.card,
    )


def _result(agent: Any, solved: TaskFamily, config: RunConfig, iterations: int, steps: int, updates: int, seconds: float) -> Result:
    began, shown = time.perf_counter(), config.agent.task_observable
    environments = Environments(solved, shown, config.simulation_threads)

    def scored(split: str, deterministic: bool) -> TrialScores:
        return score(environments, agent, split, config.evaluation_seed(iterations, split, deterministic), deterministic=deterministic)

    try:
        finals = [scored(split, True) for split in splits_of(solved, SCORED_SPLITS)] + [scored("test", False)]
        last = scored(CURVE_SPLIT, True)
    finally:
        environments.close()
    spent = time.perf_counter() - began
    means = CurveScores(returns=tuple(last.mean_returns.tolist()), success=tuple(last.success_rates.tolist()))
    point = CurvePoint(
        iteration=iterations, environment_steps=steps, gradient_updates=updates, seconds=seconds + spent, scores={CURVE_SPLIT: means}
    )
    command = ("dmrlad_bench.record", "--agent", config.agent.name, "--env", config.env, "--seed", str(config.seed))
    return Result(
        family=FamilyRecord(id=solved.id, digest=solved.digest, reference=finals[0].reference),
        agent=AgentRecord(name=config.agent.name, digest=config.agent.digest, track=config.agent.track),
        budget=config.budget,
        seed=config.seed,
        iterations=iterations,
        environment_steps=steps,
        gradient_updates=updates,
        wall_seconds=Seconds(total=seconds + spent, phases={"evaluate": spent}),
        device=config.device,
        threads=config.threads,
        simulation_threads=config.simulation_threads,
        host=host(config.device),
        packages=packages(),
        command=(*command, "--budget", config.budget),
        curve=(point,),
        final=tuple(map(TrialMatrix.of, finals)),
    )
