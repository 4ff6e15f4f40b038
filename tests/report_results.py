"""Results as runs would write them, made through the models: what reports are tested with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmrlad_bench.cards import load_agent, load_family, resolve_agent
from dmrlad_bench.protocol import CURVE_SPLIT, SCORED_SPLITS, trials_of
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
    """A finished run whose returns scatter around `level` and rise by one from episode to episode.

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
    final = tuple(_matrix(split, kind, len(getattr(card.tasks, split)), level, episodes, reference, generator) for split, kind in splits)
    final += (_matrix("test", False, len(card.tasks.test), level, episodes, reference, generator),)
    learns = agent != "random"
    steps = (20_000, 40_000, 60_000) if learns else (0,)
    means, success = (np.array(rows).mean(axis=(0, 1)) for rows in (final[0].returns, final[0].success))
    curve = tuple(
        CurvePoint(
            iteration=20 * (number + 1) if learns else 0,
            environment_steps=count,
            gradient_updates=count // 10,
            seconds=count / 200,
            scores={
                CURVE_SPLIT: CurveScores(
                    returns=tuple((means - (len(steps) - 1 - number) * 2).tolist()),
                    success=tuple((success * (number + 1) / len(steps)).tolist()),
                )
            },
        )
        for number, count in enumerate(steps)
    )
    result = Result(
        family=FamilyRecord(id=card.id, digest=card.digest, reference=reference),
        agent=AgentRecord(name=agent, digest=preset_digest(agent, family, budget)),
        budget=budget,  # pyright: ignore[reportArgumentType]
        seed=seed,
        iterations=60 if learns else 0,
        environment_steps=steps[-1],
        gradient_updates=steps[-1] // 10,
        wall_seconds=Seconds(total=300.0 + float(generator.uniform(0, 10)), phases={"improve": 200.0}),
        device="cpu",
        threads=1,
        host=HOST,
        packages={"python": "3.11.7"},
        command=("dmrlad-bench", "run", "--agent", agent, "--env", family, "--seed", str(seed), "--out", "/home/somebody/runs"),
        curve=curve,
        final=final,
    )
    return result.model_copy(update=changes)


def preset_digest(agent: str, family: str, budget: str) -> str:
    """The digest of a preset on a family with a budget; anything else has one that no preset has."""
    if not (ROOT / "agents" / f"{agent}.toml").exists():
        return "f" * 64
    return resolve_agent(load_agent(agent), family, budget).digest


def _matrix(
    split: str, deterministic: bool, tasks: int, level: float, episodes: int, reference: Any, generator: np.random.Generator
) -> TrialMatrix:
    shape = (tasks, trials_of(split), episodes)
    returns = level + np.arange(episodes) + generator.normal(size=(tasks, 1, 1)) + 0.3 * generator.normal(size=shape)
    return TrialMatrix.of(TrialScores(split, deterministic, np.arange(tasks), returns, returns > level + 1.0, reference))


def write_run(folder: Path, result: Result) -> Path:
    """A run folder with nothing but its result, where `run` would have made it; returns it."""
    family = result.family.id.rpartition("/")[2].rpartition("-v")[0]
    run = folder / family / f"{result.agent.name}--{result.budget}--seed{result.seed}"
    run.mkdir(parents=True)
    (run / "result.json").write_bytes(result.json_bytes())
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
