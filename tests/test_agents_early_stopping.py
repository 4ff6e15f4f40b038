"""Training of task inference: early stopping gives back the best weights *and* the optimiser they had."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from toy_problem import filled_replay, generator_of, random_trials, toy_problem

from dmrlad_bench.agents.inference import Segments, TaskInference, Weights
from dmrlad_bench.agents.interface import Diverged
from dmrlad_bench.cards.agent_sections import Inference

PROBLEM = toy_problem()
TRIALS = random_trials(PROBLEM, 60, 0)
LEARNABLE = replace(TRIALS, next_observation=-TRIALS.observation, reward=TRIALS.action.sum(-1))
REPLAY = filled_replay(PROBLEM, LEARNABLE)


def inference_of(**changes: Any) -> TaskInference:
    content = {"encoder_hidden": (8,), "decoder_hidden": (8,), "window": 3, "learning_rate": 1e-2, "validation_interval": 5, "patience": 10}
    config = Inference.model_validate({**content, **changes})
    return TaskInference(config, PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.reconstruction_dims, generator_of(1))


def segments_of(seed: int = 0) -> Segments:
    return REPLAY.segments(16, 4, 3, False, False, generator_of(seed))


def spoilt(segments: Segments) -> Segments:
    """The same inputs with answers that are far from the truth."""
    return replace(segments, reward=segments.reward + 30.0, next_state=segments.next_state - 30.0)


def turning_bad(after: int) -> Callable[[], Segments]:
    """A draw function that gives good segments `after` times, then spoilt ones."""
    drawn = 0

    def draw() -> Segments:
        nonlocal drawn
        drawn += 1
        return segments_of(drawn) if drawn <= after else spoilt(segments_of(drawn))

    return draw


def assert_same_state(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same_state(first[key], second[key])
    elif isinstance(first, list):
        for one, other in zip(first, second, strict=True):
            assert_same_state(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_the_best_weights_and_their_optimiser_come_back() -> None:
    inference = inference_of(validation_interval=30, patience=60)
    by_hand = copy.deepcopy(inference)
    generator = generator_of(2)
    twin_generator = generator.clone_state()
    metrics = inference.fit(turning_bad(30), segments_of(99), 1000, generator)
    for step in range(1, 31):  # no validation, and so no re-balancing, falls before the best
        by_hand.update(segments_of(step), twin_generator)
    assert metrics["reconstruction_updates"] == 90  # best at 30, patience 60
    for part in ("encoder", "decoder", "optimiser"):
        assert_same_state(inference.state_dict()[part], by_hand.state_dict()[part])
    steps = [int(entry["step"]) for entry in inference.optimiser.state_dict()["state"].values()]
    assert set(steps) == {30}
    by_hand.weights = inference.weights
    for learner in (inference, by_hand):  # and training goes on as from there
        learner.update(segments_of(7), generator_of(7))
    assert_same_state(inference.state_dict()["decoder"], by_hand.state_dict()["decoder"])


def test_patience_counts_from_the_best_validation() -> None:
    for good, patience, expected in ((20, 20, 40), (30, 10, 40), (30, 15, 45)):
        metrics = inference_of(patience=patience).fit(turning_bad(good), segments_of(99), 1000, generator_of(2))
        assert metrics["reconstruction_updates"] == expected


def test_training_that_still_improves_runs_to_the_end() -> None:
    inference = inference_of(patience=10)
    before = inference.loss(segments_of(99), generator_of(0))[1:]
    metrics = inference.fit(turning_bad(10**6), segments_of(99), 37, generator_of(2))
    assert metrics["reconstruction_updates"] == 37  # validated at 37 too, though that is between two intervals
    assert inference.updates == 37
    assert {int(entry["step"]) for entry in inference.optimiser.state_dict()["state"].values()} <= {30, 35, 37}
    assert metrics["validation_state_error"] < float(before[0])
    assert metrics["validation_reward_error"] < float(before[1])


def test_training_that_only_harms_gives_back_where_it_started() -> None:
    """Beliefs then stay as the policy knows them, optimiser and all."""
    inference = inference_of()
    inference.fit(turning_bad(10**6), segments_of(99), 40, generator_of(0))
    before = copy.deepcopy(inference.state_dict())
    metrics = inference.fit(turning_bad(0), segments_of(99), 1000, generator_of(2))
    assert metrics["reconstruction_updates"] == 10
    for part in ("encoder", "decoder", "optimiser"):
        assert_same_state(inference.state_dict()[part], before[part])


def test_reported_errors_are_those_of_the_weights_given_back() -> None:
    inference = inference_of()
    generator = generator_of(2)
    noise = generator.clone_state()
    metrics = inference.fit(turning_bad(5), segments_of(99), 1000, generator)
    _, state_error, reward_error = inference.loss(segments_of(99), noise)
    assert metrics["validation_state_error"] == pytest.approx(float(state_error))
    assert metrics["validation_reward_error"] == pytest.approx(float(reward_error))


def test_validation_rebalances_the_two_errors() -> None:
    inference = inference_of(validation_interval=5, patience=1000, reward_weight=0.5)
    generator = generator_of(2)
    noise = generator.clone_state()
    twin = copy.deepcopy(inference)
    twin_generator = generator.clone_state()
    inference.fit(turning_bad(10**6), segments_of(99), 5, generator)
    for step in range(1, 6):
        twin.update(segments_of(step), twin_generator)
    _, state_error, reward_error = twin.loss(segments_of(99), noise)
    assert inference.weights == Weights.balanced(float(state_error), float(reward_error), PROBLEM.reconstruction_dims)
    assert inference.weights != Weights(0.5, 0.5)


def test_no_updates_change_nothing() -> None:
    inference = inference_of()
    before, generator = copy.deepcopy(inference.state_dict()), generator_of(3)
    untouched = generator.get_state()
    assert inference.fit(turning_bad(0), segments_of(), 0, generator) == {}
    assert_same_state(inference.state_dict(), before)
    assert torch.equal(generator.get_state(), untouched)


def test_a_loss_that_is_no_number_is_reported_by_name_and_update() -> None:
    inference = inference_of()
    inference.fit(turning_bad(10**6), segments_of(99), 5, generator_of(0))
    broken = replace(segments_of(), reward=segments_of().reward * float("nan"))
    with pytest.raises(Diverged, match=r"reconstruction loss is nan at reconstruction update 10"):
        inference.fit(lambda: broken, segments_of(99), 20, generator_of(0))


def test_state_dict_carries_everything_training_depends_on() -> None:
    first, second = inference_of(), inference_of(encoder="shared_class")
    first.fit(turning_bad(10**6), segments_of(99), 7, generator_of(0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for inference in (first, second):
        inference.fit(turning_bad(10**6), segments_of(99), 7, generator_of(1))
    assert_same_state(first.state_dict(), second.state_dict())
    assert second.updates == 14


def test_where_the_first_updates_only_harm_the_optimiser_is_as_new() -> None:
    """Its moments did not exist when the weights were kept."""
    inference = inference_of()
    before = [parameter.detach().clone() for parameter in inference.parameters]
    inference.fit(turning_bad(0), segments_of(99), 1000, generator_of(2))
    assert all(torch.equal(parameter, kept) for parameter, kept in zip(inference.parameters, before, strict=True))
    assert inference.optimiser.state
    assert not any(value.any() for moments in inference.optimiser.state.values() for value in moments.values())
