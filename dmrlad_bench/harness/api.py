"""The Python API: `train` and `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmrlad_bench.agents.external import NEEDED, AgentFault, complete, takes_device
from dmrlad_bench.agents.interface import Agent
from dmrlad_bench.cards import CardError, load_agent, resolve_agent
from dmrlad_bench.cards.external import EXTERNAL
from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.envs.scripted import check_scripted
from dmrlad_bench.harness.agent import load_trained
from dmrlad_bench.harness.collect import Environments
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.evaluate import score
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.run import CONFIG_FILE, Run, RunConfig, read_config, resolve_device, run_name
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.protocol import EPISODES, trials_of
from dmrlad_bench.reports.scores import TrialScores

OUT = Path("runs")
ENV = "DMRLAD/CheetahVelSparse-v0"


def plan(
    agent: str | Path,
    env: str | Path = ENV,
    *,
    seed: int = 0,
    budget: str = "quick",
    device: str = "auto",
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    resume: bool = False,
    jobs: int = 1,
) -> tuple[RunConfig, Path]:
    """Resolve what a run would be, and its folder; nothing is written.

    A resumed run takes its device and threads from its folder where `device` is `auto` and `threads` is None; a new one shares
    the cores allowed with the other runs at a time, of which there are `jobs`.

    Raises:
        CardError: unknown agent, family, budget, device or key; a bad value.
    """
    solved = family(env)
    card = load_agent(agent)
    config = complete(resolve_agent(card, solved.name, budget, tuple(overrides)))
    if config.algorithm == "scripted":
        check_scripted(solved)
    if seed < 0:
        raise CardError(f"seed: expected a whole number from 0 on, got {seed}")
    _check_threads(threads)
    folder = Path(OUT if out is None else out) / solved.name / run_name(config.name, budget, seed)
    if resume and os.path.exists(folder / CONFIG_FILE):
        recorded = read_config(folder)
        device = recorded.device if device == "auto" else device
        threads = recorded.threads if threads is None else threads
    if config.algorithm == EXTERNAL and device != "cpu" and not takes_device(config):
        if device != "auto":
            raise CardError(f"device {device!r}: agent {config.import_path!r} has no parameter 'device'; accepted: auto, cpu")
        device = "cpu"
    resolved = RunConfig(
        env=solved.id,
        budget=budget,
        seed=seed,
        device=resolve_device(device),
        threads=max(1, available_cores() // jobs) if threads is None else threads,
        agent=config,
        family=solved.card,
    )
    return resolved, folder


def train(
    agent: str | Path,
    env: str | Path = ENV,
    *,
    seed: int = 0,
    budget: str = "quick",
    device: str = "auto",
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Train and score one agent on one family; what `dmrlad-bench run` does.

    Args:
        agent: a preset's name, a TOML file, or `package.module:Class`.
        env: a family's Gymnasium id, bare name or TOML file.
        seed: of everything random in the run.
        budget: `smoke`, `quick`, `standard` or `full`.
        device: `auto`, `cpu` or `cuda`.
        out: the folder that holds the run folders; `runs` unless given.
        overrides: `key=value` for the agent's configuration, as `schedule.iterations=20`.
        threads: of torch and of the simulation; None = as many as there are cores allowed.
        resume: continue an existing run folder.
        quiet: show no progress on standard error.

    Raises:
        CardError: bad input, or a run folder that cannot be used.
        RunFailed: a loss became NaN, the disk is full, or an agent of anyone's raised.
        KeyboardInterrupt: Ctrl-C; the last whole iteration is saved.
    """
    options = {"seed": seed, "budget": budget, "device": device, "out": out, "overrides": tuple(overrides), "threads": threads}
    config, folder = plan(agent, env, **options, resume=resume)  # pyright: ignore[reportArgumentType]
    command = ["dmrlad-bench", "run", "--agent", str(agent), "--env", str(env), "--seed", str(seed), "--budget", budget, "--device", device]
    command += [] if out is None else ["--out", str(out)]
    command += [] if threads is None else ["--threads", str(threads)]
    command += [part for override in overrides for part in ("--set", override)]
    return train_run(config, folder, resume=resume, command=command, quiet=quiet)


def evaluate(
    agent: Run | str | Path | Agent,
    env: str | Path | TaskFamily | None = None,
    split: str = "test",
    episodes: int = EPISODES,
    *,
    trials: int | None = None,
    deterministic: bool = True,
    seed: int = 0,
    threads: int | None = None,
) -> TrialScores:
    """Score a run or any agent object by the K-episode protocol.

    Args:
        agent: a run, its folder, or any object with `begin_trial`, `act` and `observe`.
        env: the family; a run's own unless given.
        split: `test`, `train`, `ood` or `validation`.
        episodes: K, consecutive episodes in each task.
        trials: in every task; None = as many as a run's final scores took, or the protocol's (5 for `test` and `ood`, else 1).
        deterministic: whether the agent acts without noise.
        seed: for agent objects; a run is scored with its own seed, so its final scores come out again.
        threads: of torch and of the simulation, None = the run's own; for agent objects of the simulation only, None = as many as
            there are cores allowed.

    Raises:
        CardError: not a run, not an agent, no such split, or a family of other sizes.
        RunFailed: a run's agent is a class of anyone's, and raised.
    """
    _check_threads(threads)
    if isinstance(agent, str | Path):
        agent = Run(Path(agent))
    options: dict[str, Any] = {"episodes": episodes, "deterministic": deterministic, "trials": trials}
    if isinstance(agent, Run):
        config = agent.config
        solved = TaskFamily(config.family) if env is None else _family(env)
        if env is not None and (solved.observation_dim, solved.action_dim) != _sizes(TaskFamily(config.family)):
            raise CardError(f"env {solved.id}: observations and actions have other sizes than those of the run's family {config.env}")
        threads = config.threads if threads is None else threads
        options["trials"] = trials_of(split, config.agent.schedule.final_trials) if trials is None else trials
        try:
            with torch_settings(threads, config.device):
                actor, iteration = load_trained(agent)
                sequence = config.evaluation_seed(iteration, split, deterministic)
                return _score(actor, solved, split, sequence, threads, options)
        except AgentFault as error:
            raise RunFailed(f"{agent.folder}: {error}") from error
    missing = [name for name in NEEDED if not callable(getattr(agent, name, None))]
    if missing:
        raise CardError(f"agent {type(agent).__name__}: has no {', '.join(missing)}; an agent has begin_trial, act and observe")
    if env is None:
        raise CardError("env: an agent object needs one")
    return _score(agent, _family(env), split, np.random.SeedSequence(seed), threads or available_cores(), options)


def _score(
    agent: Agent, solved: TaskFamily, split: str, sequence: np.random.SeedSequence, threads: int, options: dict[str, Any]
) -> TrialScores:
    environments = Environments(solved, getattr(agent, "task_observable", False), threads)
    try:
        return score(environments, agent, split, sequence, **options)
    finally:
        environments.close()


def _check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise CardError(f"threads: expected at least 1, got {threads}")


def _family(env: str | Path | TaskFamily) -> TaskFamily:
    return env if isinstance(env, TaskFamily) else family(env)


def _sizes(solved: TaskFamily) -> tuple[int, int]:
    return solved.observation_dim, solved.action_dim
