"""Results as runs would write them, made through the models: what reports are tested with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tomli_w

from dmrlad_bench.cards import FamilyCard, agent_names, load_agent, load_family, resolve_agent
from dmrlad_bench.cards.amounts import evaluated_iterations, steps_until
from dmrlad_bench.protocol import CURVE_SPLIT, SCORED_SPLITS, trials_of
from dmrlad_bench.reports.bounds import return_bounds
from dmrlad_bench.reports.plausibility import NOT_LEARNING
from dmrlad_bench.reports.results import (
    AgentRecord,
    CurvePoint,
    CurveScores,
    FamilyRecord,
    Host,
    Result,
    Seconds,
    TrialMatrix,
)
from dmrlad_bench.reports.scores import TrialScores

ROOT = Path(__file__).parent.parent
REFERENCES = {"PointGoalSparse": (0.5, 10.5), "PointGoal": (-24.0, -4.0), "CheetahVelSparse": None, "CheetahVel": None}
COMMAND = ("dmrlad-bench", "run")
HOST = Host(system="Linux", machine="x86_64", processor="a processor", cores=2, accelerator=None)


def use_references(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Families are read from a copy of the published cards whose reference scores are `REFERENCES`; returns the folder."""
    envs = folder / "envs"
    envs.mkdir(parents=True)
    for path in sorted((ROOT / "envs").glob("*.toml")):
        text, reference = path.read_text(), REFERENCES.get(path.stem)
        if path.stem in REFERENCES:
            text = text.partition("[reference]")[0]
        if reference is not None:
            text = f"{text.rstrip()}\n\n[reference]\nrandom = {reference[0]}\nblind = {reference[0]}\noracle = {reference[1]}\n"
        (envs / path.name).write_text(text)
    for module in ("dmrlad_bench.cards.family", "dmrlad_bench.cli.reports"):
        monkeypatch.setattr(f"{module}.register_folder", lambda kind: envs if kind == "envs" else ROOT / kind)
    return envs


def use_presets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Presets are read from a copy of the published cards with `still` and `blind` as plain as can be; yields the folder."""
    agents = folder / "agents"
    agents.mkdir(parents=True)
    for path in sorted((ROOT / "agents").glob("*.toml")):
        (agents / path.name).write_text(path.read_text())
    (agents / "still.toml").write_text('name = "still"\ndescription = "Stands still."\nextends = "random"\n')
    (agents / "blind.toml").write_text('name = "blind"\ndescription = "Is told nothing."\nextends = "cemrl"\n')
    with monkeypatch.context() as patched:
        patched.setattr("dmrlad_bench.cards.agent.register_folder", lambda kind: agents)
        agent_names.cache_clear()
        yield agents
    agent_names.cache_clear()


def make_result(
    agent: str = "dmrlad",
    family: str = "PointGoalSparse",
    budget: str = "quick",
    seed: int = 0,
    level: float = 5.0,
    episodes: int = 3,
    reference: tuple[float, float] | None = None,
    **changes: Any,
) -> Result:
    """A finished run whose returns scatter around `level` and rise by one from episode to episode, as far as its reward allows.

    Its iterations, steps and updates are those of the preset's schedule; of another agent, of `dmrlad`'s.

    Args:
        agent: a preset's name; another name gets a digest of its own.
        family: bare name.
        budget: of the run.
        seed: of the run and of its scatter.
        level: mean return of the first episode.
        episodes: K.
        reference: as the card was when the run was made.
        changes: fields of the result that are other than usual.
    """
    card = load_family(family)
    generator = np.random.default_rng([seed, *agent.encode(), *family.encode()])
    splits = [(split, True) for split in SCORED_SPLITS if getattr(card.tasks, split)]
    final = tuple(
        _matrix(card, split, kind, len(getattr(card.tasks, split)), level, episodes, reference, generator) for split, kind in splits
    )
    final += (_matrix(card, "test", False, len(card.tasks.test), level, episodes, reference, generator),)
    config = resolve_agent(load_agent(agent if agent in agent_names() else "dmrlad"), family, budget)
    iterations = 0 if config.algorithm in NOT_LEARNING else config.schedule.iterations
    points = evaluated_iterations(config, iterations)
    updates = config.schedule.policy_updates + config.schedule.reconstruction_updates * (config.inference.kind != "none") // 2
    seconds = 300.0 + float(generator.uniform(0, 10))
    means, success = (np.array(rows).mean(axis=(0, 1)) for rows in (final[0].returns, final[0].success))
    low, high = return_bounds(card)
    curve = tuple(
        CurvePoint(
            iteration=iteration,
            environment_steps=steps_until(config, card, iteration),
            gradient_updates=updates * iteration,
            seconds=290.0 * (number + 1) / len(points),
            scores={
                CURVE_SPLIT: CurveScores(
                    returns=tuple(np.clip(means - (len(points) - 1 - number) * 2, low, high).tolist()),
                    success=tuple((success * (number + 1) / len(points)).tolist()),
                )
            },
        )
        for number, iteration in enumerate(points)
    )
    result = Result(
        family=FamilyRecord(id=card.id, digest=card.digest, reference=reference),
        agent=AgentRecord(name=agent, digest=preset_digest(agent, family, budget), track=track_of(agent)),
        budget=budget,  # pyright: ignore[reportArgumentType]
        seed=seed,
        iterations=iterations,
        environment_steps=curve[-1].environment_steps,
        gradient_updates=curve[-1].gradient_updates,
        wall_seconds=Seconds(total=seconds, phases={"improve": 200.0}),
        device="cpu",
        threads=1,
        host=HOST,
        packages={"python": "3.11.7", "dmrlad-bench": "0.1.0"},
        command=(*COMMAND, "--agent", agent, "--env", family, "--seed", str(seed), "--budget", budget, "--out", "/home/somebody/runs"),
        curve=curve,
        final=final,
    )
    return result.model_copy(update=changes)


def preset_digest(agent: str, family: str, budget: str) -> str:
    """The digest of a preset on a family with a budget; anything else has one that no preset has."""
    return resolve_agent(load_agent(agent), family, budget).digest if agent in agent_names() else "f" * 64


def track_of(agent: str) -> Literal["standard", "privileged"]:
    """The track of a preset; standard for anything else."""
    return (load_agent(agent).track if (ROOT / "agents" / f"{agent}.toml").exists() else None) or "standard"


def _matrix(
    card: FamilyCard,
    split: str,
    deterministic: bool,
    tasks: int,
    level: float,
    episodes: int,
    reference: Any,
    generator: np.random.Generator,
) -> TrialMatrix:
    shape = (tasks, trials_of(split), episodes)
    returns = level + np.arange(episodes) + generator.normal(size=(tasks, 1, 1)) + 0.3 * generator.normal(size=shape)
    returns = np.clip(returns, *return_bounds(card))
    success, (least, _) = returns > level + 1.0, return_bounds(card, True)
    if least is not None:
        success &= returns >= least
    _, most = return_bounds(card, False)
    if most is not None:
        success |= returns > most
    return TrialMatrix.of(TrialScores(split, deterministic, np.arange(tasks), returns, success, reference))


def write_run(folder: Path, result: Result) -> Path:
    """A run folder with nothing but its result, where `run` would have made it; returns it."""
    family = result.family.id.rpartition("/")[2].rpartition("-v")[0]
    run = folder / family / f"{result.agent.name}--{result.budget}--seed{result.seed}"
    run.mkdir(parents=True)
    (run / "result.json").write_bytes(result.json_bytes())
    return run


def with_config(folder: Path, result: Result, overrides: tuple[str, ...] = (), card: str | None = None) -> Path:
    """A run folder as `run` leaves it, of the result's preset (or of another card) with `--set`; returns it."""
    family = load_family(result.family.id)
    config = resolve_agent(load_agent(card or result.agent.name), family.name, result.budget, overrides)
    command = [part for override in overrides for part in ("--set", override)]
    record = result.agent.model_copy(update={"name": config.name, "digest": config.digest})
    run = write_run(folder, result.model_copy(update={"agent": record, "command": (*result.command, *command)}))
    told = {"env": family.id, "budget": result.budget, "seed": result.seed, "device": result.device, "threads": result.threads}
    (run / "config.toml").write_bytes(tomli_w.dumps({**told, "agent": config.model_dump(mode="json", exclude_none=True)}).encode())
    return run


def with_returns(result: Result, split: str, change: float) -> Result:
    """The result after an edit by hand: the first return of `split` is another."""
    final = []
    for matrix in result.final:
        returns = np.array(matrix.returns)
        if (matrix.split, matrix.deterministic) == (split, True):
            returns[0, 0, -1] += change
        final.append(TrialMatrix(**{**dict(matrix), "returns": returns.tolist()}))
    return result.model_copy(update={"final": tuple(final)})
