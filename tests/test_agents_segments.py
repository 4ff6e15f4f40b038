"""Training stretches for task inference: which targets are drawn, and which context each of them sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, window_belief
from scipy.stats import chisquare
from toy_problem import filled_replay, generator_of, random_trials, toy_problem

from dmrlad_bench.agents.inference import Segments, TaskInference
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_sections import Inference

PROBLEM = toy_problem(task_classes=np.array([2, 0, 1, 0]))
STEPS = PROBLEM.horizon * PROBLEM.episodes_per_trial
LENGTHS = np.array([10, 3, 7, 1, 10, 5])


def marked_replay(held_out: np.ndarray | None = None) -> TrialReplay:
    """Every stored step carries its trial in its first observation entry, its step in its first action entry; statistics do nothing."""
    trials = random_trials(PROBLEM, 6, 0, length=LENGTHS, task_index=np.array([0, 1, 2, 3, 0, 1]))
    lived = np.arange(STEPS) < LENGTHS[:, None]
    trials.observation[..., 0] = np.where(lived, np.arange(6)[:, None], -1)
    trials.action[..., 0] = np.where(lived, np.arange(STEPS), -1)
    replay = filled_replay(PROBLEM, trials, held_out=held_out)
    replay.statistics.means = [torch.zeros(3), torch.zeros(2), torch.zeros(1)]
    replay.statistics.deviations = [torch.ones(3), torch.ones(2), torch.ones(1)]
    return replay


def targets_of(segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Trial and step of every target that exists, `(targets,)`."""
    present = segments.target.numpy()
    trial, step = segments.observation[..., 0].numpy()[present], segments.action[..., 0].numpy()[present]
    return trial.round().astype(int), step.round().astype(int)


@pytest.mark.parametrize("length", [1, 4, 16])
@pytest.mark.parametrize("window", [0, 3])
def test_every_step_is_equally_likely_to_be_a_target(length: int, window: int) -> None:
    segments = marked_replay().segments(6_000 + 30_000 // length, length, window, False, False, generator_of(length))
    counts = np.zeros((6, STEPS))
    np.add.at(counts, targets_of(segments), 1)
    lived = np.arange(STEPS) < LENGTHS[:, None]
    assert counts[~lived].sum() == 0
    if length == 1:
        assert chisquare(counts[lived]).pvalue > 1e-3
    shares = counts[lived] / counts[lived].mean()
    np.testing.assert_allclose(shares, 1.0, atol=0.2)  # targets of one stretch come together, so the spread is wider than a chi-square's


@pytest.mark.parametrize("length", [1, 4, 16])
@pytest.mark.parametrize("window", [0, 1, 3, 20])
def test_stretches_stay_inside_their_trial(length: int, window: int) -> None:
    segments = marked_replay().segments(300, length, window, False, False, generator_of(1))
    owner = np.array(
        [
            row[valid][0] if valid.any() else -1
            for row, valid in zip(array(segments.observation[..., 0]), segments.target.numpy(), strict=True)
        ]
    )
    seen, exists = array(segments.transitions[..., 0]), segments.valid.numpy()
    assert segments.target.any(-1).all()  # no stretch without a target
    assert (seen == owner[:, None])[exists].all()
    steps = array(segments.transitions[..., PROBLEM.observation_dim])
    for row in range(300):
        inside = steps[row][exists[row]]
        assert (np.diff(inside) == 1).all()
        assert exists[row].sum() <= LENGTHS[int(owner[row])]


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("window", [0, 1, 3, 20])
def test_the_belief_of_a_target_is_that_of_the_transitions_before_it(length: int, window: int) -> None:
    """Exactly the last W transitions before the target, over the episodes of its trial, never its own nor another trial's."""
    replay = marked_replay()
    config = Inference(encoder_hidden=(6,), decoder_hidden=(4,), latent_dim=2, window=window, classes=2)
    inference = TaskInference(config, PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.reconstruction_dims, generator_of(0))
    segments = replay.segments(40, length, window, False, False, generator_of(2))
    with torch.no_grad():
        beliefs = inference.beliefs(segments)
    places = iter(zip(*targets_of(segments), strict=True))
    for row, column in zip(*np.nonzero(segments.target.numpy()), strict=True):
        trial, step = next(places)
        first = max(0, step - window) if window else 0
        context = replay.transitions(torch.tensor(trial), slice(None))[first:step]
        expected = window_belief(inference.encoder, context.numpy())
        np.testing.assert_allclose(beliefs.mean[row, column].numpy(), expected.mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(beliefs.classes[row, column].numpy(), expected.classes, rtol=1e-3, atol=1e-4)


def test_targets_carry_what_followed_them() -> None:
    replay = marked_replay()
    segments = replay.segments(50, 4, 3, False, False, generator_of(3))
    present = segments.target.numpy()
    trial, step = targets_of(segments)
    data = {name: value.numpy() for name, value in replay.data.items()}
    np.testing.assert_allclose(segments.reward.numpy()[present], data["reward"][trial, step])
    np.testing.assert_allclose(segments.action.numpy()[present], data["action"][trial, step])
    np.testing.assert_allclose(segments.next_state.numpy()[present], data["next_observation"][trial, step, : PROBLEM.reconstruction_dims])
    assert segments.task_class is not None
    owner = np.broadcast_to(segments.task_class.numpy()[:, None], present.shape)[present]
    np.testing.assert_array_equal(owner, np.array([2, 0, 1, 0])[data["task_index"][trial]])


@pytest.mark.parametrize("side", [True, False])
def test_validation_and_training_never_share_a_trial(side: bool) -> None:
    held_out = np.array([True, False, False, True, False, True])
    segments = marked_replay(held_out).segments(400, 4, 3, side, False, generator_of(4))
    assert set(targets_of(segments)[0]) == set(np.flatnonzero(held_out == side))


@pytest.mark.parametrize("changes", [{"horizon": 1, "episodes_per_trial": 1}, {"horizon": 1, "episodes_per_trial": 2}])
@pytest.mark.parametrize("window", [0, 2])
def test_shortest_trials_work(changes: dict[str, Any], window: int) -> None:
    problem = toy_problem(**changes)
    replay = filled_replay(problem, random_trials(problem, 5, 0))
    inference = TaskInference(Inference(encoder_hidden=(4,), decoder_hidden=(4,), window=window), 3, 2, 2, generator_of(0))
    loss, _, _ = inference.loss(replay.segments(6, 3, window, False, False, generator_of(0)), generator_of(1))
    assert np.isfinite(float(loss.detach()))
