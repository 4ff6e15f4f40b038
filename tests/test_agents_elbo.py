"""The negative ELBO of task inference against float64 loops, class labels, and the balance of its two errors."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, network, softplus, window_belief
from toy_problem import filled_replay, generator_of, random_trials, toy_problem

from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.inference import Segments, TaskInference, Weights, negative_elbo
from dmrlad_bench.cards.agent_sections import Inference

PROBLEM = toy_problem(task_classes=np.array([0, 0, 1, 2]))


def inference_of(seed: int = 0, **changes: Any) -> TaskInference:
    content = {"encoder_hidden": (7,), "decoder_hidden": (9,), "latent_dim": 2, "window": 3, "classes": 3, "batch_size": 16, **changes}
    return TaskInference(
        Inference.model_validate(content), PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.reconstruction_dims, generator_of(seed)
    )


def segments_of(seed: int = 0, count: int = 6, length: int = 4, window: int = 3, difference: bool = False) -> Segments:
    """Stretches of trials of unequal lengths, so that some context and some targets do not exist."""
    replay = filled_replay(PROBLEM, random_trials(PROBLEM, 8, seed, length=np.array([10, 10, 7, 5, 3, 2, 1, 9])))
    return replay.segments(count, length, window, False, difference, generator_of(seed))


def reference_divergence(mean: np.ndarray, deviation: np.ndarray, prior_mean: np.ndarray, prior_deviation: np.ndarray) -> float:
    """KL of two diagonal Gaussians, by numerical integration of each dimension."""
    total = 0.0
    for one, spread, other, prior_spread in zip(mean, deviation, prior_mean, prior_deviation, strict=True):
        grid = np.linspace(one - 12 * spread, one + 12 * spread, 40_001)
        log_q = -0.5 * ((grid - one) / spread) ** 2 - np.log(spread)
        log_p = -0.5 * ((grid - other) / prior_spread) ** 2 - np.log(prior_spread)
        density = np.exp(log_q)
        total += (density * (log_q - log_p)).sum() / density.sum()
    return total


@pytest.mark.parametrize("classes", [1, 3])
def test_the_bound_equals_its_terms_one_by_one(classes: int) -> None:
    drawn = np.random.default_rng(classes)
    shape = (2, 3)
    weights = drawn.random((*shape, classes)) + 0.05
    probabilities = weights / weights.sum(-1, keepdims=True)
    mean, deviation = drawn.normal(size=(*shape, classes, 2)), drawn.uniform(0.2, 1.5, (*shape, classes, 2))
    prior_mean, prior_deviation = drawn.normal(size=(classes, 2)), drawn.uniform(0.3, 1.0, (classes, 2))
    state_error, reward_error = drawn.random((*shape, classes)), drawn.random((*shape, classes))
    config = Inference(classes=classes, latent_dim=2, kl_weight=0.3, class_kl_weight=0.7)
    tensors = [torch.as_tensor(part) for part in (probabilities, mean, deviation, prior_mean, prior_deviation, state_error, reward_error)]
    ours = negative_elbo(Belief(*tensors[:3]), (tensors[3], tensors[4]), tensors[5], tensors[6], Weights(0.2, 0.8), config)
    assert ours.shape == shape
    for index in np.ndindex(*shape):
        expected = 0.0
        for k in range(classes):
            error = 0.2 * state_error[index][k] + 0.8 * reward_error[index][k]
            divergence = reference_divergence(mean[index][k], deviation[index][k], prior_mean[k], prior_deviation[k])
            expected += probabilities[index][k] * (error + 0.3 * divergence)
            expected += 0.7 * probabilities[index][k] * np.log(probabilities[index][k] * classes)
        assert float(ours[index]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_class_that_is_ruled_out_costs_no_nan() -> None:
    belief = Belief(torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2, 1))
    errors = torch.tensor([1.0, 5.0])
    loss = negative_elbo(
        belief, (torch.zeros(2, 1), torch.ones(2, 1)), errors, errors, Weights(0.5, 0.5), Inference(classes=2, class_kl_weight=1.0)
    )
    assert float(loss) == pytest.approx(1.0 + np.log(2))


def reference_loss(inference: TaskInference, segments: Segments, noise: np.ndarray) -> tuple[float, float, float]:
    """Loss and errors with a loop over stretches, targets and classes."""
    config = inference.config
    prior_mean, prior_deviation = array(inference.encoder.prior.mean), softplus(array(inference.encoder.prior.raw_deviation))
    losses, states, rewards = [], [], []
    for stretch in range(segments.target.shape[0]):
        for at in range(segments.target.shape[1]):
            if not segments.target[stretch, at]:
                continue
            position = int(segments.position[stretch, at])
            seen = [i for i in range(max(0, position - config.window), position) if segments.valid[stretch, i]]
            belief = window_belief(inference.encoder, array(segments.transitions)[stretch, seen])
            loss = state_error = reward_error = 0.0
            for k, share in enumerate(belief.classes):
                latent = belief.mean[k] + belief.deviation[k] * noise[stretch, at, k]
                inputs = np.concatenate([array(segments.observation)[stretch, at], array(segments.action)[stretch, at], latent])
                following = array(segments.next_state)[stretch, at]
                state = np.sum((network(inference.decoder.state, inputs) - following) ** 2)
                shown = np.concatenate([inputs, following]) if config.reward_sees == "next_state" else inputs
                reward = (network(inference.decoder.reward, shown)[0] - float(segments.reward[stretch, at])) ** 2
                divergence = reference_divergence(belief.mean[k], belief.deviation[k], prior_mean[k], prior_deviation[k])
                weighted = inference.weights.state * state + inference.weights.reward * reward
                loss += share * (weighted + config.kl_weight * divergence)
                loss += config.class_kl_weight * share * np.log(share * config.classes)
                state_error, reward_error = state_error + share * state, reward_error + share * reward
            if config.class_labels and segments.task_class is not None:
                loss -= np.log(belief.classes[int(segments.task_class[stretch])])
            losses.append(loss)
            states.append(state_error)
            rewards.append(reward_error)
    return float(np.mean(losses)), float(np.mean(states)), float(np.mean(rewards))


@pytest.mark.parametrize(
    "changes",
    [{"classes": 1}, {}, {"class_labels": True}, {"prior": "learned", "encoder": "per_transition_class"}, {"reward_sees": "next_state"}],
)
def test_the_whole_loss_equals_a_loop_over_targets(changes: dict[str, Any]) -> None:
    inference = inference_of(kl_weight=0.2, class_kl_weight=0.4, reward_weight=0.7, **changes)
    segments = segments_of()
    assert not segments.target.all()
    generator = generator_of(3)
    noise = torch.randn((*segments.target.shape, inference.config.classes, 2), generator=generator.clone_state()).numpy()
    ours = [float(part.detach()) for part in inference.loss(segments, generator)]
    np.testing.assert_allclose(ours, reference_loss(inference, segments, noise), rtol=2e-4)


def test_state_differences_are_the_other_target() -> None:
    following, change = segments_of(difference=False), segments_of(difference=True)
    expected = following.next_state - following.observation[..., : PROBLEM.reconstruction_dims]
    torch.testing.assert_close(change.next_state, expected)


def test_without_states_to_reconstruct_only_the_reward_counts() -> None:
    problem = toy_problem(reconstruction_dims=0)
    replay = filled_replay(problem, random_trials(problem, 4, 0))
    inference = TaskInference(Inference(encoder_hidden=(4,), decoder_hidden=(4,), window=2), 3, 2, 0, generator_of(0))
    loss, state_error, reward_error = inference.loss(replay.segments(5, 2, 2, False, False, generator_of(1)), generator_of(2))
    assert inference.weights == Weights(0.0, 1.0)
    assert float(state_error) == 0.0
    assert float(loss.detach()) == pytest.approx(float(reward_error), rel=0.05)


def test_class_labels_add_their_gradient_and_teach_the_classes() -> None:
    segments = segments_of(count=32)
    plain, labelled = (
        inference_of(class_kl_weight=0.0, learning_rate=1e-2),
        inference_of(class_kl_weight=0.0, learning_rate=1e-2, class_labels=True),
    )
    assert segments.task_class is not None

    def cross_entropy(inference: TaskInference) -> torch.Tensor:
        assert segments.task_class is not None
        probabilities = inference.beliefs(segments).classes
        chosen = probabilities.gather(-1, segments.task_class[:, None, None].expand(*segments.target.shape, 1)).squeeze(-1)
        return -(chosen.log() * segments.target).sum() / segments.target.sum()

    gradients = []
    for inference in (plain, labelled):
        inference.loss(segments, generator_of(4))[0].backward()
        gradients.append(inference.encoder.class_head.weight.grad)
    extra = torch.autograd.grad(cross_entropy(plain), plain.encoder.class_head.weight)[0]
    torch.testing.assert_close(gradients[1] - gradients[0], extra, rtol=1e-3, atol=1e-6)
    for _ in range(60):
        for inference in (plain, labelled):
            inference.update(segments, generator_of(5))
    assert float(cross_entropy(labelled).detach()) < 0.8 * float(cross_entropy(plain).detach())


def test_labels_of_a_family_without_classes_change_nothing() -> None:
    segments = replace(segments_of(), task_class=None)
    losses = [float(inference_of(class_labels=labels).loss(segments, generator_of(1))[0].detach()) for labels in (False, True)]
    assert losses[0] == losses[1]


def test_balanced_weights() -> None:
    assert Weights.balanced(6.0, 1.0, 2) == Weights(0.75, 0.25)  # the single reward counts as often as there are state entries
    assert Weights.balanced(1.0, 1.0, 1) == Weights(0.5, 0.5)
    assert Weights.balanced(0.0, 0.0, 3) == Weights(0.5, 0.5)
    assert Weights.balanced(1.0, 1.0, 0) == Weights(0.0, 1.0)
    assert Weights.balanced(float("nan"), 1.0, 2) == Weights(0.5, 0.5)
    balanced = Weights.balanced(0.123, 4.5, 7)
    assert balanced.state + balanced.reward == pytest.approx(1.0)
    assert balanced.reward / balanced.state == pytest.approx(7 * 4.5 / 0.123)


@pytest.mark.parametrize("prior", ["fixed", "learned"])
def test_only_a_learned_prior_moves(prior: str) -> None:
    inference = inference_of(prior=prior, kl_weight=1.0, learning_rate=1e-2)
    before = copy.deepcopy(inference.encoder.prior.state_dict())
    for _ in range(3):
        inference.update(segments_of(), generator_of(0))
    moved = [not torch.equal(value, before[name]) for name, value in inference.encoder.prior.state_dict().items()]
    assert moved == [prior == "learned"] * 2


def test_a_fixed_prior_lies_at_the_class_number_with_the_given_deviation() -> None:
    mean, deviation = inference_of(prior_deviation=0.3).encoder.prior()
    torch.testing.assert_close(mean, torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]))
    torch.testing.assert_close(deviation, torch.full((3, 2), 0.3))
