"""What updates draw beside stored trials: the card's shares, and who may ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_problem import generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Problem
from dmrlad_bench.agents.step_relabelling import interleaved
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import STEP_KEYS

PROBLEM = toy_problem()


def agent_of(problem: Problem = PROBLEM, **relabel: Any) -> Cemrl:
    return Cemrl(small_config(relabel=relabel, inference={"window": 0}), problem, np.random.SeedSequence(0), "cpu")


def test_rows_of_all_kinds_are_spread_evenly() -> None:
    def constant(rows: int, value: float) -> Batch:
        return Batch(*(torch.full((rows, 1), value) for _ in range(4)), *(torch.full((rows,), value) for _ in range(2)))

    batch = interleaved([24, 48, 24], [constant(24, 0.0), constant(48, 1.0), constant(24, 2.0)])
    for stretch in batch.reward.split(16):
        assert [int((stretch == kind).sum()) for kind in range(3)] == [4, 8, 4]
    assert torch.equal(batch.state[:, 0], batch.reward)


def test_the_shares_are_the_card_s() -> None:
    agent = agent_of(crossed_share=0.5)
    trials = random_trials(PROBLEM, 8, 1)
    metrics = agent.learn(trials)
    near = np.abs(trials.outcome[..., 0][..., None] - PROBLEM.train_tasks[:, 0]) <= 0.4
    assert metrics["met_tasks"] == near.any((0, 1)).sum()
    by_step = agent.by_step
    assert by_step is not None
    asked: dict[str, int] = {}

    def noting(name: str, draw: Any) -> Any:
        def noted(rows: int, *arguments: Any) -> Batch:
            asked[name] = rows
            return draw(rows, *arguments)

        return noted

    for name, source in (("own", by_step.replay), ("crossed", by_step.crossing)):
        source.batch = noting(name, source.batch)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(by_step.batch(64, True, generator_of(0)).reward) == 64
    assert asked == {"own": 32, "crossed": 32}
    agent.replay.data["outcome"].fill_(100.0)
    by_step.look(agent.replay, generator_of(0))
    asked.clear()
    by_step.batch(64, True, generator_of(0))
    assert asked == {"own": 64}  # no task was met


def test_an_agent_learns_otherwise_and_the_same_again() -> None:
    def learnt(**relabel: Any) -> torch.Tensor:
        agent = agent_of(**relabel)
        agent.learn(random_trials(PROBLEM, 6, 1))
        agent.learn(random_trials(PROBLEM, 6, 2))
        assert agent.inference is not None
        return torch.cat([part.detach().flatten() for part in (*agent.learner.policy.parameters(), *agent.inference.parameters)])

    plain = learnt()
    every = {"crossed_share": 0.5, "crossed_targets": 0.5}
    for keys in (*({name: value} for name, value in every.items()), every):
        assert torch.equal(learnt(**keys), learnt(**keys))
        assert not torch.allclose(learnt(**keys), plain)
    for kind in ("none", "random"):
        with pytest.raises(ValueError, match=f"crossed_share needs hindsight: kind must be 'hindsight' or 'hfr', got '{kind}'"):
            learnt(kind=kind, **every)


@pytest.mark.parametrize("key", ["crossed_share", "crossed_targets"])
def test_families_and_agents_that_cannot_say_so(key: str) -> None:
    with pytest.raises(CardError, match=r"must be 0 where tasks change inside an episode"):
        agent_of(toy_problem(tasks_change=True), **{key: 0.5})
    for algorithm, section in (("pearl", "pearl"), ("rl2", "recurrent")):
        kind = "hfr" if algorithm == "pearl" else "none"
        content: dict[str, Any] = {"inference": {"kind": "none"}, "relabel": {"kind": kind, key: 0.5}, section: {}}
        content |= {"actor_critic": {"critic": "scalar"}, "schedule": {"reconstruction_updates": 0}}
        reason = rf"algorithm 'pearl' does not read relabel.{key}: it must be 0.0, got 0.5" if kind == "hfr" else f"{key} needs hindsight"
        with pytest.raises(ValueError, match=reason):
            AgentConfig(name="toy", algorithm=algorithm, description="", **content)  # pyright: ignore[reportArgumentType]


def test_the_digest_counts_the_shares() -> None:
    shares = dict.fromkeys(STEP_KEYS, 0.25)
    assert small_config(relabel={"kind": "hfr"}).digest != small_config(relabel={"kind": "hfr", **shares}).digest


@pytest.mark.parametrize("kind", ["none", "random", "hindsight"])
def test_copies_by_gain_are_hfr_s(kind: str) -> None:
    with pytest.raises(ValueError, match=f"copies_by_gain goes with kind 'hfr'; with '{kind}' it must be 0"):
        small_config(relabel={"kind": kind, "copies": 3, "copies_by_gain": 2})
