"""A run's agent: as it is before training, and as a checkpoint left it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmrlad_bench.agents.external import AgentFault
from dmrlad_bench.agents.interface import Agent, Problem
from dmrlad_bench.agents.simple import ScriptedAgent
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.foreign import message_of
from dmrlad_bench.envs.family import TaskFamily
from dmrlad_bench.envs.scripted import scripted_policy
from dmrlad_bench.harness.checkpoint import checkpoint_iterations, load_checkpoint
from dmrlad_bench.harness.run import Run, RunConfig, has_cuda


def make_agent(config: RunConfig, family: TaskFamily) -> Agent:
    """The run's agent as it is before training; all it may know of the family is the `Problem`."""
    if config.agent.algorithm == "scripted":
        return ScriptedAgent(scripted_policy(family))
    from dmrlad_bench.agents.build import build_agent  # torch, which validation does not wait for

    judge = _judge(family)
    problem = Problem(
        observation_dim=family.observation_dim + (family.task_dim if config.agent.shown_while_training else 0),
        action_dim=family.action_dim,
        horizon=family.horizon,
        episodes_per_trial=config.agent.schedule.episodes_per_trial or family.episodes_per_trial,
        train_tasks=family.tasks("train"),
        reward=judge.reward,
        outcome_dim=family.outcome_dim,
        reconstruction_dims=family.reconstruction_dims,
        relabelable=family.relabelable,
        tasks_change=family.tasks_change,
        task_classes=family.task_classes("train"),
        success=judge.success,
    )
    return build_agent(config.agent, problem, config.seeds()["agent"], config.device)


def _judge(family: TaskFamily) -> TaskFamily:
    """What an agent's reward function belongs to: another object than the one that scores, with nothing but training tasks to be read."""
    judge = copy.copy(family)
    tasks = family.card.tasks.model_copy(update={"validation": (), "test": (), "ood": ()})
    judge.card = family.card.model_copy(update={"tasks": tasks}, deep=True)
    return judge


def load_trained(run: Run) -> tuple[Agent, int]:
    """The agent of a run's newest checkpoint, without its replay, and the checkpoint's iteration.

    A run of a GPU is loaded onto the CPU where torch sees no GPU; a line on standard error says so.

    Raises:
        CardError: not a run folder, or no checkpoint that is whole and fits.
    """
    config = run.config
    if config.device == "cuda" and not has_cuda():
        print_notice(f"{run.folder}: ran on cuda, which torch does not see here; scored on the cpu, where last digits may differ")
        config = config.model_copy(update={"device": "cpu"})
    iteration, state = _newest(run.folder)
    agent: Any = make_agent(config, TaskFamily(config.family))
    if hasattr(agent, "load_state_dict"):
        with fitting(run.folder, iteration):
            agent.load_state_dict(state["agent"])
    elif hasattr(agent, "learn"):
        raise CardError(f"{run.folder}: the agent has no state_dict and load_state_dict, so what it learnt was not saved")
    return agent, iteration


@contextmanager
def fitting(folder: Path, iteration: int) -> Iterator[None]:
    """What a checkpoint's content is loaded under: content of another shape, as after a change of the code, is a `CardError`."""
    try:
        yield
    except (CardError, AgentFault):
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
        fault = f"{type(error).__name__}: {message_of(error)}"
        raise CardError(f"{folder}: checkpoint {iteration} does not fit this version of the program: {fault}") from error


def print_notice(text: str) -> None:
    """One line on standard error that is shown even when quiet."""
    print(text, file=sys.stderr)


def _newest(folder: Path) -> tuple[int, dict[str, Any]]:
    """The newest checkpoint that is whole; where the newest of all is damaged, a line on standard error says so.

    A training run may replace checkpoints while they are read; then those that are there now are tried.
    """
    while True:
        iterations, faults = checkpoint_iterations(folder), []
        if not iterations:
            raise CardError(f"{folder}: has no checkpoint")
        for iteration in iterations:
            try:
                state = load_checkpoint(folder, iteration)
            except CardError as error:
                faults.append(error)
                if checkpoint_iterations(folder) != iterations:
                    break
            else:
                for fault in faults:
                    print_notice(f"{fault}; falling back to iteration {iteration}")
                return iteration, state
        else:
            raise faults[0]
