"""The quantile Huber loss against explicit loops, closed forms, and what it is for: quantiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dmrlad_bench.agents.critics import quantile_huber_loss


def loss_of(prediction: object, target: object, fractions: object, weights: object) -> float:
    parts = (torch.as_tensor(np.asarray(part), dtype=torch.float64) for part in (prediction, target, fractions, weights))
    return float(quantile_huber_loss(*parts))


def reference(prediction: np.ndarray, target: np.ndarray, fractions: np.ndarray, weights: np.ndarray) -> float:
    """mean_batch mean_i sum_j p'_j |tau_i - 1{target_j < prediction_i}| huber_1(target_j - prediction_i)."""
    total = 0.0
    for row in range(len(prediction)):
        for i in range(prediction.shape[1]):
            for j in range(target.shape[1]):
                delta = target[row, j] - prediction[row, i]
                huber = 0.5 * delta**2 if abs(delta) <= 1 else abs(delta) - 0.5
                total += weights[row, j] * abs(fractions[row, i] - float(target[row, j] < prediction[row, i])) * huber / prediction.shape[1]
    return total / len(prediction)


def random_case(seed: int, batch: int = 5, predictions: int = 4, targets: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    drawn = np.random.default_rng(seed)
    weights = drawn.random((batch, targets)) + 0.1
    return (
        2 * drawn.normal(size=(batch, predictions)),
        2 * drawn.normal(size=(batch, targets)),
        np.sort(drawn.random((batch, predictions)), -1),
        weights / weights.sum(-1, keepdims=True),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(4, 4), (4, 3), (1, 6), (6, 1)])
def test_equals_explicit_loops(seed: int, shape: tuple[int, int]) -> None:
    case = random_case(seed, 5, *shape)
    assert loss_of(*case) == pytest.approx(reference(*case), rel=1e-12)


@pytest.mark.parametrize(
    ("prediction", "target", "tau", "expected"),
    [
        (0.0, 3.0, 0.9, 0.9 * 2.5),  # above the prediction: weight tau, linear
        (3.0, 0.0, 0.9, 0.1 * 2.5),  # below: weight 1 - tau
        (0.0, 0.5, 0.2, 0.2 * 0.125),  # within one: quadratic
        (0.5, 0.0, 0.2, 0.8 * 0.125),
        (1.0, 1.0, 0.3, 0.0),
    ],
)
def test_one_fraction_has_a_closed_form(prediction: float, target: float, tau: float, expected: float) -> None:
    assert loss_of([[prediction]], [[target]], [[tau]], [[1.0]]) == pytest.approx(expected)


def test_means_run_over_predictions_and_weighted_sums_over_targets() -> None:
    """By hand: predictions 0 and 10 at fractions 0.1 and 0.8, targets 4 and 20 with weights 0.25 and 0.75.

    i = 1: 0.1 (0.25 * 3.5 + 0.75 * 19.5) = 1.55; i = 2: 0.2 * 0.25 * 5.5 + 0.8 * 0.75 * 9.5 = 5.975; mean 3.7625.
    Sums for means, means for sums, fractions of the other side or exchanged axes all give another number.
    """
    assert loss_of([[0.0, 10.0]], [[4.0, 20.0]], [[0.1, 0.8]], [[0.25, 0.75]]) == pytest.approx(3.7625)


def test_a_single_row_of_fractions_serves_the_whole_batch() -> None:
    prediction, target, fractions, weights = random_case(1)
    shared = loss_of(prediction, target, fractions[:1], weights[:1])
    assert shared == pytest.approx(reference(prediction, target, np.repeat(fractions[:1], 5, 0), np.repeat(weights[:1], 5, 0)))


def test_twins_are_summed() -> None:
    first, second = random_case(2), random_case(3)
    both = np.stack([first[0], second[0]])
    expected = reference(*first) + reference(second[0], *first[1:])
    assert loss_of(both, *first[1:]) == pytest.approx(expected)


def test_gradients_equal_finite_differences() -> None:
    prediction, target, fractions, weights = (torch.as_tensor(part) for part in random_case(4))
    leaf = prediction.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: quantile_huber_loss(values, target, fractions, weights), (leaf,))


@pytest.mark.parametrize("tau", [0.05, 0.3, 0.5, 0.77, 0.95])
def test_its_minimiser_is_the_quantile_of_the_targets(tau: float) -> None:
    """On a scale where a Huber width of 1 is nothing, the best constant is the sample's tau-quantile."""
    sample = np.sort(np.random.default_rng(0).exponential(1e4, 41))  # 41 tau is never whole here, so the quantile is one of them
    values, weights = torch.as_tensor(sample).unsqueeze(0), torch.full((1, 41), 1 / 41, dtype=torch.float64)
    fraction = torch.tensor([[tau]], dtype=torch.float64)
    losses = [float(quantile_huber_loss(candidate.view(1, 1), values, fraction, weights)) for candidate in values[0]]
    assert sample[int(np.argmin(losses))] == np.quantile(sample, tau, method="inverted_cdf")


def test_unequal_weights_move_the_minimiser() -> None:
    """Targets 0 and 1000: the median is where the heavier weight lies."""
    for weights, expected in (([[0.8, 0.2]], 0.0), ([[0.2, 0.8]], 1000.0)):
        candidates = np.linspace(0.0, 1000.0, 101)
        losses = [loss_of([[candidate]], [[0.0, 1000.0]], [[0.5]], weights) for candidate in candidates]
        assert candidates[int(np.argmin(losses))] == expected
