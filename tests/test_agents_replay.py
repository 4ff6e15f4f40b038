"""The replay: a ring of whole trials, uniform draws, statistics, and a record that a resumed run reads back."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from agent_references import array
from scipy.stats import chisquare
from toy_problem import as_tensors, filled_replay, generator_of, random_trials, toy_problem

from dmrlad_bench.agents.replay import SHARD_KEYS, TrialReplay

PROBLEM = toy_problem()
STEPS = PROBLEM.horizon * PROBLEM.episodes_per_trial
LENGTHS = np.array([10, 3, 7, 1, 10, 5])


def empty_replay(capacity: int) -> TrialReplay:
    return TrialReplay(PROBLEM, capacity, 2, torch.device("cpu"))


def test_what_goes_in_comes_out() -> None:
    trials = random_trials(PROBLEM, 6, 0, length=LENGTHS)
    replay = filled_replay(PROBLEM, trials)
    assert replay.size == 6
    for name, value in vars(trials).items():
        np.testing.assert_array_equal(replay.data[name][:6].numpy(), value)


def test_a_ring_keeps_the_newest_trials_and_nothing_of_the_old() -> None:
    replay = empty_replay(7)
    for seed in range(5):  # long trials first, short ones over them: a stale tail would show
        length = np.full(3, STEPS if seed < 3 else 2)
        trials = random_trials(PROBLEM, 3, seed, length=length)
        trials.observation[...] += 100 * (seed + 1) * (np.arange(STEPS) < length[:, None])[..., None]
        slots = replay.add(as_tensors(trials))
        np.testing.assert_array_equal(replay.data["observation"][slots].numpy(), trials.observation)
    assert replay.size == 7
    expected = {3: 1, 4: 3, 5: 3}  # trials alive of each addition, by hand: 15 came, the last 7 stay
    marks = np.round(replay.data["observation"][:, 0, 0].numpy() / 100).astype(int)
    assert {mark: int((marks == mark).sum()) for mark in np.unique(marks)} == expected
    lengths = replay.data["length"].numpy()
    np.testing.assert_array_equal(lengths, np.where(marks == 3, STEPS, 2))
    batch = replay.batch(2000, False, generator_of(0))
    drawn = np.round(batch.state[:, 0].numpy() / 100).astype(int)
    assert set(drawn) == set(expected)  # no padding (0) and no overwritten trial (1, 2)
    trial, step = replay.draw_steps(2000, generator_of(1))
    assert (step >= 0).all()
    assert (step < replay.data["length"][trial]).all()


def test_more_trials_than_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 trials .* schedule\.replay_trials = 7"):
        empty_replay(7).add(as_tensors(random_trials(PROBLEM, 8, 0)))


def test_every_stored_step_is_equally_likely() -> None:
    replay = filled_replay(PROBLEM, random_trials(PROBLEM, 6, 0, length=LENGTHS))
    trial, step = replay.draw_steps(36_000, generator_of(0))
    counts = np.zeros((6, STEPS))
    np.add.at(counts, (trial.numpy(), step.numpy()), 1)
    lived = np.arange(STEPS) < LENGTHS[:, None]
    assert counts[~lived].sum() == 0
    assert chisquare(counts[lived]).pvalue > 1e-3


def test_batches_hold_matching_parts_and_the_belief_of_their_step() -> None:
    trials = random_trials(PROBLEM, 6, 0, length=LENGTHS)
    replay = filled_replay(PROBLEM, trials)
    replay.belief.copy_(torch.randn(replay.belief.shape, generator=generator_of(1)))
    trial, step = replay.draw_steps(64, generator_of(5))
    at = trial.numpy(), step.numpy()
    for next_belief in (False, True):
        batch = replay.batch(64, next_belief, generator_of(5))
        belief = replay.belief[trial, step]
        np.testing.assert_array_equal(batch.state.numpy(), np.concatenate([trials.observation[at], belief], -1))
        ahead = replay.belief[trial, step + 1] if next_belief else belief
        np.testing.assert_array_equal(batch.next_state.numpy(), np.concatenate([trials.next_observation[at], ahead], -1))
        np.testing.assert_array_equal(batch.belief.numpy(), belief.numpy())
        np.testing.assert_array_equal(batch.action.numpy(), trials.action[at])
        np.testing.assert_array_equal(batch.reward.numpy(), trials.reward[at])
        np.testing.assert_array_equal(batch.terminated.numpy(), trials.terminated[at].astype(np.float32))


def test_truncated_episodes_are_bootstrapped() -> None:
    """An episode that only ran out of time is not terminated, so its last step keeps its bootstrap."""
    trials = random_trials(PROBLEM, 4, 0)
    replay = filled_replay(PROBLEM, replace(trials, terminated=np.zeros_like(trials.terminated)))
    assert float(replay.batch(500, False, generator_of(0)).terminated.sum()) == 0.0


def test_statistics_are_those_of_all_steps_ever_added() -> None:
    replay, parts = empty_replay(4), []
    for seed in range(3):  # the ring forgets, the statistics do not
        trials = random_trials(PROBLEM, 4, seed, length=np.array([10, 2, 6, 4]))
        trials.observation[...] = np.where(trials.observation == 0, 0, 3 * trials.observation + 5)
        replay.add(as_tensors(trials))
        lived = np.arange(STEPS) < trials.length[:, None]
        parts.append(np.concatenate([trials.observation[lived], trials.action[lived], trials.reward[lived][:, None]], -1))
    rows = np.concatenate(parts).astype(np.float64)
    statistics = replay.statistics
    np.testing.assert_allclose(np.concatenate([array(part) for part in statistics.means]), rows.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([array(part) for part in statistics.deviations]), rows.std(0), rtol=1e-5)
    inputs = (torch.ones(2, 3), torch.ones(2, 2), torch.ones(2), 2 * torch.ones(2, 3))
    mean, deviation = rows.mean(0), rows.std(0)
    expected = np.concatenate([(1 - mean) / deviation, (2 - mean[:3]) / deviation[:3]])
    np.testing.assert_allclose(array(statistics.transition(*inputs)), np.tile(expected, (2, 1)), rtol=1e-4)


def test_constant_entries_are_not_blown_up() -> None:
    trials = random_trials(PROBLEM, 3, 0)
    replay = filled_replay(PROBLEM, replace(trials, reward=np.zeros_like(trials.reward)))
    assert float(replay.statistics.reward(torch.tensor([0.01]))) == pytest.approx(10.0)
    fresh = empty_replay(3).statistics
    torch.testing.assert_close(fresh.observation(torch.ones(3)), torch.ones(3))


def test_shards_rebuild_the_ring() -> None:
    replay = empty_replay(7)
    shards = [replay.shard(replay.add(as_tensors(random_trials(PROBLEM, 3, seed), np.array([True, False, False])))) for seed in range(4)]
    assert tuple(shards[0]) == SHARD_KEYS
    assert all(isinstance(value, np.ndarray) for value in shards[0].values())
    again = empty_replay(7)
    for shard in shards:
        again.add_shard(copy.deepcopy(shard))
    assert (again.size, again.next) == (replay.size, replay.next)
    for name, value in replay.data.items():
        assert torch.equal(value, again.data[name])
    for one, other in zip(
        vars(replay.batch(32, False, generator_of(3))).values(), vars(again.batch(32, False, generator_of(3))).values(), strict=True
    ):
        assert torch.equal(one, other)
    for side in (True, False):
        first, second = (entry.segments(8, 2, 3, side, False, generator_of(4)) for entry in (replay, again))
        assert torch.equal(first.transitions, second.transitions)


def test_statistics_are_saved_and_restored() -> None:
    first, second = filled_replay(PROBLEM, random_trials(PROBLEM, 4, 0)).statistics, empty_replay(4).statistics
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    values = torch.randn(5, 3)
    torch.testing.assert_close(first.observation(values), second.observation(values), rtol=0, atol=0)
    assert second.count == 40
