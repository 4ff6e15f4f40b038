"""PEARL's posterior against brute force, and its divergence against integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from toy_problem import generator_of

from dmrlad_bench.agents.pearl_posterior import PosteriorEncoder, divergence_from_prior
from dmrlad_bench.cards.agent_sections import Pearl


def encoder_of(**changes: Any) -> PosteriorEncoder:
    config = Pearl.model_validate({"latent_dim": 2, "encoder_hidden": (6,), "next_observation": True, **changes})
    return PosteriorEncoder(config, 3, 2, generator_of(0))


def context_of(count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 9, generator=generator_of(seed))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_posterior_is_the_normalised_product_of_the_factors_and_nothing_else(count: int) -> None:
    encoder, context = encoder_of(), context_of(count)
    with torch.no_grad():
        belief = encoder.of_context(encoder.rows(context, torch.ones(count)))
        singles = [encoder.of_context(encoder.rows(context[i : i + 1], torch.ones(1))) for i in range(count)]
    grid = np.linspace(-40, 40, 400_001)
    for entry in range(2):
        log_density = np.zeros_like(grid)
        for single in singles:
            log_density += norm.logpdf(grid, float(single.mean[0, entry]), float(single.deviation[0, entry]))
        density = np.exp(log_density - log_density.max())
        density /= density.sum()
        mean = (density * grid).sum()
        assert float(belief.mean[0, entry]) == pytest.approx(mean, abs=1e-4)
        assert float(belief.deviation[0, entry]) == pytest.approx(np.sqrt((density * (grid - mean) ** 2).sum()), abs=1e-4)


def test_factors_are_what_the_network_says_with_softplus_deviations() -> None:
    encoder, context = encoder_of(), context_of(3)
    with torch.no_grad():
        mean, raw = encoder.network(context).numpy().astype(np.float64).reshape(3, 2, 2).transpose(1, 0, 2)
        beliefs = encoder.of_sums(encoder.rows(context, torch.ones(3)))  # each transition a context of its own
    np.testing.assert_allclose(beliefs.mean[:, 0].numpy(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(beliefs.deviation[:, 0].numpy(), np.logaddexp(raw, 0) + 1e-3, rtol=1e-4)


def test_an_empty_context_is_the_prior_and_missing_transitions_say_nothing() -> None:
    encoder, context = encoder_of(), context_of(6)
    empty = encoder.of_context(encoder.rows(context, torch.zeros(6)))
    torch.testing.assert_close(empty.point(True).detach(), torch.tensor([0.0, 0.0, 1.0, 1.0]), rtol=0, atol=0)
    valid = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    masked = encoder.of_context(encoder.rows(context, valid)).point(True)
    torch.testing.assert_close(masked, encoder.of_context(encoder.rows(context[valid > 0], torch.ones(3))).point(True))


def test_the_order_of_a_context_means_nothing() -> None:
    encoder, context = encoder_of(), context_of(6)
    turned = context[torch.tensor([3, 5, 0, 1, 4, 2])]
    one, other = (encoder.of_context(encoder.rows(entry, torch.ones(6))).point(True) for entry in (context, turned))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sees", [True, False])
def test_the_next_observation_is_seen_where_asked_for(sees: bool) -> None:
    encoder, context = encoder_of(next_observation=sees), context_of(4)
    changed = context.clone()
    changed[:, 6:] += 1.0
    one, other = (encoder.of_context(encoder.rows(entry, torch.ones(4))).point() for entry in (context, changed))
    assert torch.equal(one, other) != sees


def test_an_empty_context_sends_no_broken_gradient() -> None:
    encoder, context = encoder_of(), context_of(4)
    valid = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    belief = encoder.of_context(encoder.rows(context.view(2, 2, 9), valid))
    (belief.mean.sum() + divergence_from_prior(belief.mean, belief.deviation).sum()).backward()
    gradients = [parameter.grad for parameter in encoder.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.2), (-1.3, 0.5), (0.4, 2.5)])
def test_the_divergence_is_the_integral_of_the_log_ratio(mean: float, deviation: float) -> None:
    grid = np.linspace(mean - 12 * deviation, mean + 12 * deviation, 200_001)
    density = norm.pdf(grid, mean, deviation)
    integral = np.trapezoid(density * (norm.logpdf(grid, mean, deviation) - norm.logpdf(grid)), grid)
    ours = divergence_from_prior(torch.tensor([mean, mean], dtype=torch.float64), torch.tensor([deviation, 1.0], dtype=torch.float64))
    assert float(ours) == pytest.approx(integral + 0.5 * mean**2, abs=1e-8)
