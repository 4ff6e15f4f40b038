"""The Python API: `train` and `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmrlad_bench.agents.external import NEEDED, AgentFault, complete, takes_device
from dmrlad_bench.agents.interface import Agent
from dmrlad_bench.agents.posterior import check_judgeable
from dmrlad_bench.cards import CardError, load_agent, resolve_agent
from dmrlad_bench.cards.agent_config import SHOWN_WHILE_TRAINING
from dmrlad_bench.cards.external import EXTERNAL
from dmrlad_bench.cards.foreign import described
from dmrlad_bench.envs.cores import available_cores
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.envs.metaworld_workers import SimulatorEnded
from dmrlad_bench.envs.scripted import check_scripted
from dmrlad_bench.harness.agent import load_trained
from dmrlad_bench.harness.collect import Environments
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.evaluate import score
from dmrlad_bench.harness.expected import announce
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.memory_estimate import check_memory
from dmrlad_bench.harness.replay_demand import Sizes, check_replay
from dmrlad_bench.harness.run import CONFIG_FILE, Run, RunConfig, check_folder, read_config, resolve_device, run_name
from dmrlad_bench.harness.threads import Threads, threads_for
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.harness.trust import check_trust
from dmrlad_bench.protocol import EPISODES, trials_of
from dmrlad_bench.reports.scores import TrialScores

OUT = Path("runs")
ENV = "DMRLAD/CheetahVelSparse-v0"


@dataclass(frozen=True)
class Draft:
    """What a run would be, known without torch: where the device was left open, it is the CPU until `config()` has looked for a GPU."""

    drafted: RunConfig
    folder: Path
    open_device: bool

    def config(self) -> RunConfig:
        """The configuration with its device."""
        return self.drafted.model_copy(update={"device": resolve_device("auto")}) if self.open_device else self.drafted


def plan(agent: str | Path, env: str | Path = ENV, **options: Any) -> tuple[RunConfig, Path]:
    """Resolve what a run would be, and its folder, as `draft` does, device included; nothing is written."""
    drafted = draft(agent, env, **options)
    return drafted.config(), drafted.folder


def draft(
    agent: str | Path,
    env: str | Path = ENV,
    *,
    seed: int = 0,
    budget: str = "quick",
    device: str = "auto",
    out: Path | str | None = None,
    overrides: Sequence[str] = (),
    threads: int | None = None,
    simulation_threads: int | None = None,
    resume: bool = False,
    jobs: int = 1,
) -> Draft:
    """Resolve what a run would be, and its folder, without looking for a GPU; nothing is written.

    A resumed run takes its device and threads from its folder where `device` is `auto` and `threads` is None; a new one shares
    the cores allowed with the other runs at a time, of which there are `jobs`.

    Raises:
        CardError: unknown agent, family, budget, device or key; a bad value.
    """
    for name, path in {"agent": agent, "env": env, "out": out}.items():
        _check_text(name, path)
    solved = family(env)
    card = load_agent(agent)
    config = complete(resolve_agent(card, solved.name, budget, tuple(overrides)))
    if config.algorithm == "scripted":
        check_scripted(solved)
    if config.algorithm in SHOWN_WHILE_TRAINING:
        check_judgeable(config.name, solved.id, solved.relabelable, solved.tasks_change)
    if seed < 0:
        raise CardError(f"seed: expected a whole number from 0 on, got {seed}")
    folder = Path(OUT if out is None else out) / solved.name / run_name(config.name, budget, seed)
    before: Threads | None = None
    if resume and os.path.exists(folder / CONFIG_FILE):
        recorded = read_config(folder)
        device = recorded.device if device == "auto" else device
        before = Threads(recorded.threads, recorded.simulation_threads)
    if config.algorithm == EXTERNAL and device != "cpu" and not takes_device(config):
        if device != "auto":
            raise CardError(f"device {device!r}: agent {config.import_path!r} has no parameter 'device'; accepted: auto, cpu")
        device = "cpu"
    taken = threads_for(threads, simulation_threads, budget, jobs, before)
    resolved = RunConfig(
        env=solved.id,
        budget=budget,  # pyright: ignore[reportArgumentType] - resolving the agent refused others
        seed=seed,
        device="cpu" if device == "auto" else resolve_device(device),
        threads=taken.torch,
        simulation_threads=taken.simulation,
        agent=config,
        family=solved.card,
    )
    needed_memory(resolved, solved)
    return Draft(resolved, folder, device == "auto")


def needed_memory(config: RunConfig, solved: TaskFamily | None = None) -> int:
    """Bytes that a run needs at least; raises `CardError` where its replay is too small for an iteration, or this machine for the run."""
    solved = TaskFamily(config.family) if solved is None else solved
    sizes = Sizes(
        observation_dim=solved.observation_dim + (solved.task_dim if config.agent.shown_while_training else 0),
        action_dim=solved.action_dim,
        outcome_dim=solved.outcome_dim,
        horizon=solved.horizon,
        episodes=config.agent.schedule.episodes_per_trial or solved.episodes_per_trial,
        tasks=len(solved.tasks("train")),
        widest=solved.widest,
        relabelable=solved.relabelable,
        changing=solved.tasks_change,
    )
    check_replay(config.agent, sizes)
    return check_memory(config.agent, sizes, config.device)


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
    simulation_threads: int | None = None,
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
        threads: of torch, and of the simulation unless that is given; None = 1 of torch in the budgets `smoke` and `quick`, else as
            many as there are cores allowed.
        simulation_threads: they change no result; None = `threads` where given, else as many as there are cores allowed.
        resume: continue an existing run folder.
        quiet: show no progress on standard error.

    Raises:
        CardError: bad input, or a run folder that cannot be used.
        RunFailed: a loss became NaN, the disk is full, or an agent of anyone's raised.
        KeyboardInterrupt: Ctrl-C; the last whole iteration is saved.
    """
    counts = {"threads": threads, "simulation_threads": simulation_threads}
    options: dict[str, Any] = {"seed": seed, "budget": budget, "device": device, "out": out, "overrides": tuple(overrides), **counts}
    drafted = draft(agent, env, **options, resume=resume)
    check_folder(drafted.drafted, drafted.folder, resume)
    if not quiet:
        announce({drafted.folder: drafted.drafted})
    command = ["dmrlad-bench", "run", "--agent", str(agent), "--env", str(env), "--seed", str(seed), "--budget", budget, "--device", device]
    command += [] if out is None else ["--out", str(out)]
    command += [part for name, count in counts.items() if count is not None for part in (f"--{name.replace('_', '-')}", str(count))]
    command += [part for override in overrides for part in ("--set", override)]
    return train_run(drafted.config(), drafted.folder, resume=resume, command=command, quiet=quiet)


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
    trust_code: bool = False,
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
        trust_code: whether the class and the body that a run's folder names, if it does, may be imported.

    Raises:
        CardError: not a run, not an agent, no such split, a family of other sizes, or a run with code that nobody said to trust.
        RunFailed: a run's agent is a class of anyone's, and raised; or a process that runs Meta-World was ended.
    """
    threads_for(threads, None, "quick")  # refuses bad ones
    if isinstance(agent, str | Path):
        agent = Run(Path(agent))
    options: dict[str, Any] = {"episodes": episodes, "deterministic": deterministic, "trials": trials}
    if isinstance(agent, Run):
        config = agent.config
        check_trust(agent.folder, config, trust_code)
        solved = TaskFamily(config.family) if env is None else _family(env)
        if env is not None and (solved.observation_dim, solved.action_dim) != _sizes(TaskFamily(config.family)):
            raise CardError(f"env {solved.id}: observations and actions have other sizes than those of the run's family {config.env}")
        taken = threads_for(threads, None, config.budget, recorded=Threads(config.threads, config.simulation_threads))
        options["trials"] = trials_of(split, config.agent.schedule.final_trials) if trials is None else trials
        try:
            with torch_settings(taken.torch, config.device):
                actor, iteration = load_trained(agent)
                sequence = config.evaluation_seed(iteration, split, deterministic)
                return _score(actor, solved, split, sequence, taken.simulation, options)
        except (AgentFault, SimulatorEnded, SystemExit) as error:
            raise RunFailed(f"{agent.folder}: {described(error) if isinstance(error, SystemExit) else error}") from error
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


def _check_text(name: str, path: str | Path | None) -> None:
    """A path is recorded in the result, which is UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise CardError(f"{name}: {os.fsencode(str(path))!r} is not UTF-8; results, which record it, are") from None


def _family(env: str | Path | TaskFamily) -> TaskFamily:
    return env if isinstance(env, TaskFamily) else family(env)


def _sizes(solved: TaskFamily) -> tuple[int, int]:
    return solved.observation_dim, solved.action_dim
