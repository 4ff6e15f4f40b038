"""What updates draw beside stored trials: trials under uniform tasks against a slow loop, the card's shares, and who may ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_problem import filled_replay, generator_of, random_trials, small_config, toy_problem

from dmrlad_bench.agents import uniform_tasks
from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.interface import Problem
from dmrlad_bench.agents.relabel import Hindsight
from dmrlad_bench.agents.step_relabelling import interleaved
from dmrlad_bench.agents.uniform_tasks import UniformTasks
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import STEP_KEYS

PROBLEM = toy_problem()
TASKS = torch.as_tensor(PROBLEM.train_tasks, dtype=torch.float32)
LENGTHS = np.array([10, 7, 10, 4, 10, 9])


def agent_of(problem: Problem = PROBLEM, **relabel: Any) -> Cemrl:
    return Cemrl(small_config(relabel=relabel, inference={"window": 0}), problem, np.random.SeedSequence(0), "cpu")


@pytest.mark.parametrize("window", [0, 3])
def test_a_trial_under_a_uniform_task_has_its_rewards_and_beliefs(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniform_tasks, "TRIALS", 40)
    trials = random_trials(PROBLEM, 6, 0, length=LENGTHS)
    replay = filled_replay(PROBLEM, trials)
    replay.data["copy"][2] = True
    inference = TaskInference(small_config(inference={"window": window}).inference, 3, 2, 2, generator_of(0))
    uniform = UniformTasks(Hindsight(TASKS, PROBLEM.reward), replay, inference, False, False, generator_of(1))
    assert 2 not in uniform.slots.tolist() and len(set(uniform.slots.tolist())) == 5
    assert len({float(task) for task in uniform.task}) == len(TASKS)
    for entry in range(40):
        trial = int(uniform.slots[entry])
        expected = PROBLEM.reward(trials.outcome[trial], uniform.task[entry].numpy())
        assert np.allclose(uniform.reward[entry], expected, atol=1e-6)
        for step in range(LENGTHS[trial] + 1):
            first = max(0, step - window) if window else 0
            seen = replay.transitions(torch.tensor([trial]), slice(first, step), uniform.reward[entry : entry + 1, first:step])
            belief = inference.encoder.of_context(inference.encoder.rows(seen, torch.ones(1, step - first))) if step else None
            point = inference.encoder.prior()[0][0] if belief is None else belief.point(False)[0]
            assert torch.allclose(uniform.belief[entry, step], point, atol=1e-5), (entry, step)


def test_rows_are_steps_of_those_trials() -> None:
    trials = random_trials(PROBLEM, 6, 0, length=LENGTHS)
    replay = filled_replay(PROBLEM, trials, belief_dim=0)
    uniform = UniformTasks(Hindsight(TASKS, PROBLEM.reward), replay, None, False, True, generator_of(1))
    batch = uniform.batch(50, True, generator_of(2))
    for row in range(50):
        task = batch.state[row, -1:]
        assert torch.equal(batch.next_state[row, -1:], task)  # shown
        trial, step = (int(part[0]) for part in (replay.data["action"] == batch.action[row]).all(-1).nonzero(as_tuple=True))
        assert step < LENGTHS[trial]
        assert np.isclose(PROBLEM.reward(trials.outcome[trial, step], task.numpy()), float(batch.reward[row]), atol=1e-6)
        assert torch.equal(batch.state[row, :2], replay.data["observation"][trial, step, :2])


@pytest.mark.parametrize(("next_belief", "ahead"), [(False, 0), (True, 1)])
def test_the_bootstrap_state_holds_the_belief_or_the_next(next_belief: bool, ahead: int) -> None:
    replay = filled_replay(PROBLEM, random_trials(PROBLEM, 6, 0, length=LENGTHS))
    inference = TaskInference(small_config(inference={"window": 0}).inference, 3, 2, 2, generator_of(0))
    uniform = UniformTasks(Hindsight(TASKS, PROBLEM.reward), replay, inference, False, False, generator_of(1))
    batch = uniform.batch(30, next_belief, generator_of(2))
    for row in range(30):
        entry, step = next(zip(*(uniform.belief[:, :-1] == batch.belief[row]).all(-1).nonzero(as_tuple=True), strict=True))
        if step > 0:  # all trials begin with the prior
            assert torch.equal(batch.next_state[row, 3:], uniform.belief[entry, step + ahead])


def test_rows_of_all_kinds_are_spread_evenly() -> None:
    def constant(rows: int, value: float) -> Batch:
        return Batch(*(torch.full((rows, 1), value) for _ in range(4)), *(torch.full((rows,), value) for _ in range(2)))

    batch = interleaved([24, 48, 24], [constant(24, 0.0), constant(48, 1.0), constant(24, 2.0)])
    for stretch in batch.reward.split(16):
        assert [int((stretch == kind).sum()) for kind in range(3)] == [4, 8, 4]
    assert torch.equal(batch.state[:, 0], batch.reward)


def test_the_shares_are_the_card_s() -> None:
    agent = agent_of(crossed_share=0.5, uniform_share=0.25)
    agent.learn(random_trials(PROBLEM, 8, 1))
    by_step = agent.by_step
    assert by_step is not None
    asked: dict[str, int] = {}

    def noting(name: str, draw: Any) -> Any:
        def noted(rows: int, *arguments: Any) -> Batch:
            asked[name] = rows
            return draw(rows, *arguments)

        return noted

    for name, source in (("own", by_step.replay), ("crossed", by_step.crossing), ("uniform", by_step.uniform)):
        source.batch = noting(name, source.batch)  # pyright: ignore[reportAttributeAccessIssue]
    assert len(by_step.batch(64, True, generator_of(0)).reward) == 64
    assert asked == {"own": 16, "crossed": 32, "uniform": 16}
    agent.replay.data["outcome"].fill_(100.0)
    by_step.look(agent.replay, generator_of(0))
    asked.clear()
    by_step.batch(64, True, generator_of(0))
    assert asked == {"own": 48, "uniform": 16}  # no task was met


def test_an_agent_learns_otherwise_and_the_same_again() -> None:
    def learnt(**relabel: Any) -> torch.Tensor:
        agent = agent_of(**relabel)
        agent.learn(random_trials(PROBLEM, 6, 1))
        agent.learn(random_trials(PROBLEM, 6, 2))
        assert agent.inference is not None
        return torch.cat([part.detach().flatten() for part in (*agent.learner.policy.parameters(), *agent.inference.parameters)])

    plain = learnt()
    every = {"crossed_share": 0.5, "uniform_share": 0.25, "crossed_targets": 0.5}
    for keys in (*({name: value} for name, value in every.items()), every):
        assert torch.equal(learnt(**keys), learnt(**keys))
        assert not torch.allclose(learnt(**keys), plain)
    for kind in ("none", "random"):  # no hindsight: nothing of it
        assert torch.equal(learnt(kind=kind, **every), learnt(kind=kind))


@pytest.mark.parametrize("key", ["crossed_share", "uniform_share", "crossed_targets"])
def test_families_and_agents_that_cannot_say_so(key: str) -> None:
    with pytest.raises(CardError, match=r"must be 0 where tasks change inside an episode"):
        agent_of(toy_problem(tasks_change=True), **{key: 0.5})
    for algorithm, section in (("pearl", "pearl"), ("rl2", "recurrent")):
        content: dict[str, Any] = {"inference": {"kind": "none"}, "relabel": {"kind": "none", key: 0.5}, section: {}}
        content |= {"actor_critic": {"critic": "scalar"}, "schedule": {"reconstruction_updates": 0}}
        with pytest.raises(ValueError, match=rf"algorithm '{algorithm}' does not read relabel.{key}: it must be 0.0, got 0.5"):
            AgentConfig(name="toy", algorithm=algorithm, description="", **content)  # pyright: ignore[reportArgumentType]


def test_shares_fit_into_a_batch() -> None:
    with pytest.raises(ValueError, match="crossed_share and uniform_share must not exceed 1 together"):
        small_config(relabel={"crossed_share": 0.6, "uniform_share": 0.5})


def test_the_digest_counts_the_shares_where_they_count() -> None:
    shares = dict.fromkeys(STEP_KEYS, 0.25)
    plain = {kind: small_config(relabel={"kind": kind}).digest for kind in ("none", "random", "hfr")}
    asking = {kind: small_config(relabel={"kind": kind, **shares}).digest for kind in plain}
    assert [kind for kind in plain if plain[kind] != asking[kind]] == ["hfr"]
