"""Crossed relabelling against slow loops: what is met where, and what a crossed step, belief and target may be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_problem import filled_replay, generator_of, random_trials, small_config, toy_problem, toy_success

from dmrlad_bench.agents import crossing as module
from dmrlad_bench.agents.crossing import Crossing, Meetings
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.interface import Trials
from dmrlad_bench.agents.relabel import Hindsight, hindsight_beliefs
from dmrlad_bench.agents.replay import TrialReplay

PROBLEM = toy_problem()
TASKS = torch.as_tensor(PROBLEM.train_tasks, dtype=torch.float32)
LENGTHS = np.array([10, 7, 10, 4, 10, 10, 9, 10])
HELD_OUT = np.array([False, True, False, False, True, False, False, False])
COPY = 3  # the slot of a trial that was not lived


def stored(task_dim: int = 0) -> tuple[Trials, TrialReplay]:
    trials = random_trials(PROBLEM, 8, 0, length=LENGTHS)
    replay = filled_replay(PROBLEM, trials, belief_dim=0 if task_dim else 2, held_out=HELD_OUT)
    replay.data["copy"][COPY] = True
    replay.belief.copy_(torch.randn(replay.belief.shape, generator=generator_of(9)))
    return trials, replay


def crossing_of(replay: TrialReplay, *, task_observable: bool = False) -> Crossing:
    return Crossing(Hindsight(TASKS, PROBLEM.reward), toy_success, replay, task_observable, generator_of(1))


def inference_of() -> TaskInference:
    return TaskInference(small_config(inference={"window": 0}).inference, 3, 2, 2, generator_of(0))


def slow_meetings(trials: Trials) -> set[tuple[int, int, int]]:
    """(task, trial, step), one by one."""
    return {
        (task, trial, step)
        for task in range(len(TASKS))
        for trial in range(len(LENGTHS))
        for step in range(LENGTHS[trial])
        if trial != COPY and abs(trials.outcome[trial, step, 0] - float(TASKS[task, 0])) <= 0.4
    }


def listed(meetings: Meetings) -> set[tuple[int, int, int]]:
    task = torch.arange(len(TASKS)).repeat_interleave(meetings.amount)
    return set(zip(task.tolist(), meetings.trial.tolist(), meetings.step.tolist(), strict=True))


@pytest.mark.parametrize("at_once", [2**28, 1])
def test_meetings_are_found_in_trials_as_they_were_lived(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", at_once)
    trials, replay = stored()
    crossing, expected = crossing_of(replay), slow_meetings(trials)
    assert listed(crossing.meetings) == expected
    assert len(crossing.meetings.trial) == len(expected)
    for side in (False, True):
        assert listed(crossing.by_side[side]) == {meeting for meeting in expected if HELD_OUT[meeting[1]] == side}
    for place, trial in enumerate(crossing.pool.tolist()):
        assert crossing.counts[place].tolist() == [len([m for m in expected if m[:2] == (task, trial)]) for task in range(len(TASKS))]


def test_a_large_replay_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL", 3)
    trials, replay = stored()
    crossing = crossing_of(replay)
    assert len(set(crossing.pool.tolist())) == 3
    assert listed(crossing.meetings) == {meeting for meeting in slow_meetings(trials) if meeting[1] in crossing.pool}


def test_meetings_are_drawn_evenly() -> None:
    _, replay = stored()
    meetings = crossing_of(replay).meetings
    task = torch.full((4000,), int(meetings.amount.argmax()))
    drawn = list(zip(*(part.tolist() for part in meetings.draw(task, generator_of(2))), strict=True))
    counts = np.array([drawn.count(place) for place in set(drawn)])
    assert len(counts) == int(meetings.amount.max())
    assert abs(counts / 4000 - 1 / len(counts)).max() < 4 * np.sqrt(1 / len(counts) / 4000)


def test_crossed_rows_lead_to_a_meeting_in_their_episode() -> None:
    trials, replay = stored()
    crossing, inference = crossing_of(replay), inference_of()
    crossing.foresee(inference, "trajectory", False)
    batch = crossing.batch(30, generator_of(3))
    expected = slow_meetings(trials)
    known = {
        (task, trial): hindsight_beliefs(
            inference,
            replay,
            torch.tensor([trial]),
            torch.as_tensor(PROBLEM.reward(trials.outcome[trial], PROBLEM.train_tasks[task])).float()[None, None],
            "trajectory",
        )[0, 0]
        for task, trial, _ in expected
    }
    tasks = set()
    for row in range(30):
        observation, belief = batch.state[row, :3], batch.belief[row]
        assert torch.equal(batch.state[row, 3:], belief) and torch.equal(batch.next_state[row, 3:], belief)  # held
        trial, step = next(zip(*(replay.data["observation"] == observation).all(-1).nonzero(as_tuple=True), strict=True))
        trial, step = int(trial), int(step)
        assert torch.equal(batch.next_state[row, :3], replay.data["next_observation"][trial, step])
        assert torch.equal(batch.action[row], replay.data["action"][trial, step])
        assert batch.terminated[row] == replay.data["terminated"][trial, step]
        task = next(
            task
            for task in range(len(TASKS))
            if abs(PROBLEM.reward(trials.outcome[trial, step], PROBLEM.train_tasks[task]) - float(batch.reward[row])) < 1e-5
        )
        assert any(m[:2] == (task, trial) and m[2] >= step and m[2] // 5 == step // 5 for m in expected)
        assert any(torch.allclose(belief, value, atol=1e-5) for (of, _), value in known.items() if of == task)
        tasks.add(task)
    assert len(tasks) > 1


def test_the_task_is_shown_where_observations_hold_it() -> None:
    trials, replay = stored(task_dim=1)
    batch = crossing_of(replay, task_observable=True).batch(40, generator_of(3))
    for row in range(40):
        task = batch.state[row, -1:]
        assert torch.equal(batch.next_state[row, -1:], task)
        trial, step = (int(part[0]) for part in (replay.data["action"] == batch.action[row]).all(-1).nonzero(as_tuple=True))
        assert torch.isclose(torch.as_tensor(PROBLEM.reward(trials.outcome[trial, step], task.numpy())), batch.reward[row])


@pytest.mark.parametrize("held_out", [False, True])
def test_crossed_targets_are_steps_of_their_side_under_the_task_of_the_context(held_out: bool) -> None:
    trials, replay = stored()
    crossing = crossing_of(replay)
    plain = replay.segments(50, 4, 0, held_out, False, generator_of(4))
    crossed = crossing.targets(plain, 0.5, held_out, False, generator_of(5))
    for name in ("transitions", "valid", "target", "position", "task"):
        assert torch.equal(getattr(crossed, name), getattr(plain, name)), name
    statistics = replay.statistics
    changed = (crossed.observation != plain.observation).any(-1)
    assert not changed[~plain.target].any()
    share = float(changed.sum() / plain.target.sum())
    assert 0.35 < share < 0.6
    met = 0
    for row, place in changed.nonzero().tolist():
        difference = (statistics.observation(replay.data["observation"]) - crossed.observation[row, place]).abs().sum(-1)
        trial, step = divmod(int(difference[: replay.size].argmin()), replay.steps)
        assert float(difference[trial, step]) < 1e-5
        assert HELD_OUT[trial] == held_out and trial != COPY and step < LENGTHS[trial]
        task = PROBLEM.train_tasks[int(plain.task[row])]
        reward = torch.as_tensor(PROBLEM.reward(trials.outcome[trial, step], task)).float()
        assert torch.isclose(crossed.reward[row, place], statistics.reward(reward), atol=1e-5)
        following = statistics.observation(replay.data["next_observation"][trial, step])[:2]
        assert torch.allclose(crossed.next_state[row, place], following, atol=1e-5)
        met += bool(toy_success(trials.outcome[trial, step], task))
    assert met / int(changed.sum()) > 0.4  # half by choice, others by chance


def test_where_nothing_was_met_nothing_is_crossed() -> None:
    _, replay = stored()
    replay.data["outcome"].fill_(100.0)
    crossing = crossing_of(replay)
    assert not crossing.possible
    segments = replay.segments(5, 4, 0, False, False, generator_of(4))
    assert crossing.targets(segments, 0.5, False, False, generator_of(5)) is segments
