"""Products of Gaussians: against numerical integration, against one product at a time, and as the encoder uses them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_references import multiply
from toy_problem import generator_of

from dmrlad_bench.agents.belief import Belief, gaussian_product
from dmrlad_bench.agents.encoder import ContextEncoder
from dmrlad_bench.cards.agent_sections import Inference


def product_of(means: np.ndarray, deviations: np.ndarray, prior_mean: float, prior_deviation: float) -> tuple[float, float]:
    """Ours, of factors `(n,)`, in float64."""
    precision = torch.as_tensor(deviations, dtype=torch.float64).pow(-2)
    sums = precision.sum(), (torch.as_tensor(means, dtype=torch.float64) * precision).sum()
    prior = torch.tensor(prior_mean, dtype=torch.float64), torch.tensor(prior_deviation, dtype=torch.float64)
    mean, deviation = gaussian_product(sums[0], sums[1], *prior)
    return float(mean), float(deviation)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 7])
def test_equals_the_moments_of_the_integrated_density(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    means, deviations = generator.normal(size=count), generator.uniform(0.4, 2.0, count)
    prior_mean, prior_deviation = generator.normal(), generator.uniform(0.4, 1.5)
    grid = np.linspace(-15.0, 15.0, 60_001)
    exponent = -0.5 * ((grid - prior_mean) / prior_deviation) ** 2
    for mean, deviation in zip(means, deviations, strict=True):
        exponent -= 0.5 * ((grid - mean) / deviation) ** 2
    density = np.exp(exponent - exponent.max())
    density /= density.sum()
    expected_mean = (density * grid).sum()
    expected_deviation = np.sqrt((density * (grid - expected_mean) ** 2).sum())
    np.testing.assert_allclose(product_of(means, deviations, prior_mean, prior_deviation), (expected_mean, expected_deviation), rtol=1e-6)


def test_equals_one_product_after_the_other() -> None:
    generator = np.random.default_rng(0)
    means, deviations = generator.normal(size=20), generator.uniform(0.05, 5.0, 20)
    expected = (1.0, 0.5)
    for factor in zip(means, deviations, strict=True):
        expected = multiply(expected, factor)
    np.testing.assert_allclose(product_of(means, deviations, 1.0, 0.5), expected, rtol=1e-10)


def test_ten_unit_factors_are_as_sharp_as_ten_measurements() -> None:
    """With the variance taken for a deviation the belief would be three times too sharp: 0.095."""
    wide = 1.36
    mean, deviation = product_of(np.full(10, 2.0), np.ones(10), 0.0, wide)
    assert deviation == pytest.approx(1 / np.sqrt(10 + wide**-2)) == pytest.approx(0.308, abs=1e-3)
    assert mean == pytest.approx(2.0 * 10 / (10 + wide**-2))


def test_broadcasts_over_windows_classes_and_dimensions() -> None:
    precision, weighted = torch.rand(4, 5, 3, 2) + 0.1, torch.randn(4, 5, 3, 2)
    prior_mean, prior_deviation = torch.randn(3, 2), torch.rand(3, 2) + 0.1
    mean, deviation = gaussian_product(precision, weighted, prior_mean, prior_deviation)
    for index in np.ndindex(4, 5, 3, 2):
        one = 1 / float(prior_deviation[index[2:]]) ** 2 + float(precision[index])
        assert float(deviation[index]) == pytest.approx(one**-0.5, rel=1e-5)
        expected = (float(prior_mean[index[2:]]) / float(prior_deviation[index[2:]]) ** 2 + float(weighted[index])) / one
        assert float(mean[index]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_encoder_of_unit_factors_gives_the_closed_form() -> None:
    config = Inference(encoder_hidden=(4,), window=10, latent_dim=1)
    encoder = ContextEncoder(config, 3, generator_of(0))
    with torch.no_grad():
        encoder.gaussian_head.weight.zero_()
        encoder.gaussian_head.bias[:] = torch.tensor([0.7, float(np.log(np.expm1(1.0 - 1e-3)))])  # mean 0.7, deviation 1
        belief = encoder.along(encoder.rows(torch.randn(25, 3), torch.ones(25, dtype=torch.bool)))
    count = np.minimum(np.arange(26), 10)
    np.testing.assert_allclose(belief.deviation[:, 0, 0].numpy(), 1 / np.sqrt(4 + count), rtol=1e-5)
    np.testing.assert_allclose(belief.mean[:, 0, 0].numpy(), 0.7 * count / (4 + count), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["shared_class", "per_transition_class", "trajectory"])
@pytest.mark.parametrize("prior", ["fixed", "learned"])
def test_an_empty_window_gives_the_prior(kind: str, prior: str) -> None:
    config = Inference.model_validate({"encoder": kind, "prior": prior, "classes": 3, "latent_dim": 2, "encoder_hidden": (4,), "window": 5})
    encoder = ContextEncoder(config, 3, generator_of(0))
    with torch.no_grad():
        nothing = encoder.along(encoder.rows(torch.randn(2, 4, 3), torch.zeros(2, 4, dtype=torch.bool)))
    assert nothing.classes.shape == (2, 5, 3)
    torch.testing.assert_close(nothing.classes, torch.full((2, 5, 3), 1 / 3))
    expected = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])  # N(k, 0.5^2), before a learned prior has moved
    torch.testing.assert_close(nothing.mean, expected.expand(2, 5, 3, 2))
    torch.testing.assert_close(nothing.deviation, torch.full((2, 5, 3, 2), 0.5))


def test_the_point_belief_is_the_mean_of_the_most_likely_class() -> None:
    mean = torch.arange(12.0).view(2, 3, 2)
    belief = Belief(torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.3, 0.6]]), mean, torch.ones(2, 3, 2))
    torch.testing.assert_close(belief.point(), torch.stack([mean[0, 1], mean[1, 2]]))


def test_samples_follow_classes_means_and_deviations() -> None:
    count = 20_000
    classes = torch.tensor([0.3, 0.7]).expand(count, 2)
    mean = torch.tensor([[[-10.0], [5.0]]]).expand(count, 2, 1)
    deviation = torch.tensor([[[0.5], [2.0]]]).expand(count, 2, 1)
    draws = Belief(classes, mean, deviation).sample(generator_of(1)).squeeze(-1)
    low = draws[draws < -6]
    high = draws[draws > -6]
    assert len(low) / count == pytest.approx(0.3, abs=0.015)
    assert (float(low.mean()), float(low.std())) == pytest.approx((-10.0, 0.5), abs=0.03)
    assert (float(high.mean()), float(high.std())) == pytest.approx((5.0, 2.0), abs=0.08)
