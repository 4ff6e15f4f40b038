"""The tanh-Gaussian policy against torch.distributions, and the three kinds of entropy temperature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, network
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from toy_problem import generator_of

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.agents.networks import MLP, Linear, TanhGaussianPolicy, polyak_average
from dmrlad_bench.agents.optimisers import FusedAdam
from dmrlad_bench.cards.agent_sections import ActorCritic


def policy_of(scale: float = 1.0) -> TanhGaussianPolicy:
    policy = TanhGaussianPolicy(3, 2, (6,), generator_of(0))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale)
    return policy


def test_mean_and_deviation_are_the_two_halves_of_the_network() -> None:
    policy, state = policy_of(), torch.randn(5, 3)
    mean, log_deviation = policy(state)
    expected = network(policy.trunk, array(state))
    np.testing.assert_allclose(array(mean), expected[:, :2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(array(log_deviation), expected[:, 2:], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(policy.mode(state), torch.tanh(mean))


def test_log_deviations_are_clamped() -> None:
    policy = policy_of()
    with torch.no_grad():
        policy.trunk[-1].bias.copy_(torch.tensor([0.0, 0.0, 50.0, -50.0]))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert policy(torch.zeros(1, 3))[1].tolist() == [[2.0, -20.0]]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_densities_equal_the_transformed_distribution(scale: float) -> None:
    policy = policy_of(scale).double()
    state = torch.randn(400, 3, generator=generator_of(1), dtype=torch.float64)
    action, log_density = policy.sample(state, generator_of(2))
    mean, log_deviation = policy(state)
    expected = TransformedDistribution(Normal(mean, log_deviation.exp()), [TanhTransform()]).log_prob(action).sum(-1)
    inside = (action.abs() < 1 - 1e-9).all(-1)
    assert inside.float().mean() > 0.5
    np.testing.assert_allclose(array(log_density[inside]), array(expected[inside]), rtol=1e-5, atol=1e-6)
    assert torch.isfinite(log_density).all()


def test_samples_follow_the_distribution_and_stay_inside() -> None:
    policy = policy_of()
    state = torch.tensor([[0.3, -1.0, 0.5]]).expand(40_000, 3)
    action, _ = policy.sample(state, generator_of(3))
    assert float(action.detach().abs().max()) <= 1.0
    mean, log_deviation = (array(part[0]) for part in policy(state[:1]))
    raw = np.arctanh(array(action).clip(-1 + 1e-7, 1 - 1e-7))
    np.testing.assert_allclose(raw.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(raw.std(0), np.exp(log_deviation), rtol=0.03)


def test_densities_stay_finite_where_tanh_saturates_in_single_precision() -> None:
    policy = policy_of(30.0)
    state = (5 * torch.randn(200, 3, generator=generator_of(4))).requires_grad_()
    action, log_density = policy.sample(state, generator_of(5))
    assert float(action.detach().abs().max()) == 1.0
    (log_density.sum() + action.sum()).backward()
    assert torch.isfinite(log_density).all()
    assert state.grad is not None
    assert torch.isfinite(state.grad).all()


def test_actions_are_reparameterised() -> None:
    """The same noise, a slightly other state: the difference is the gradient."""
    policy = policy_of().double()
    state = torch.randn(1, 3, generator=generator_of(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda inputs: policy.sample(inputs, generator_of(6)), (state,))


def test_layers_start_within_their_bound_and_from_their_generator() -> None:
    layer, same, other = (Linear(16, 500, generator_of(seed)) for seed in (0, 0, 1))
    for parameter in layer.parameters():
        assert float(parameter.detach().abs().max()) <= 0.25
        assert float(parameter.detach().std()) == pytest.approx(0.25 / 3**0.5, rel=0.1)
    assert torch.equal(layer.weight, same.weight)
    assert not torch.equal(layer.weight, other.weight)
    assert [type(part).__name__ for part in MLP(3, (4, 5), None, generator_of(0), layer_norm=True)] == ["Linear", "LayerNorm", "ReLU"] * 2


def test_polyak_average() -> None:
    online, target = Linear(2, 2, generator_of(0)), Linear(2, 2, generator_of(1))
    expected = 0.9 * target.weight.detach() + 0.1 * online.weight.detach()
    polyak_average(target, online, 0.1)
    torch.testing.assert_close(target.weight.detach(), expected)


def test_adam_has_the_given_rate() -> None:
    optimiser = FusedAdam(Linear(2, 2, generator_of(0)).parameters(), 0.123)
    assert [group["lr"] for group in optimiser.param_groups] == [0.123]
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0]


def trained_temperature(target_entropy: float, updates: int = 20, **changes: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Temperatures of eight beliefs before and after `updates`, for a learner that is asked for some entropy."""
    content = {"critic": "scalar", "hidden": (6,), "temperature_learning_rate": 1e-2, "initial_temperature": 0.5, **changes}
    learner = SoftActorCritic(ActorCritic.model_validate(content), 3, 1, 2, generator_of(0))
    learner.target_entropy = target_entropy
    drawn = generator_of(1)
    state = torch.randn(8, 3, generator=drawn)
    batch = Batch(state, state, state[:, -1:], torch.rand(8, 2, generator=drawn), torch.zeros(8), torch.zeros(8))
    before = learner.temperature(batch.belief).detach().expand(8)
    for update in range(updates):
        learner.update(batch, generator_of(update))
    return before, learner.temperature(batch.belief).detach().expand(8)


@pytest.mark.parametrize("kind", ["tuned", "latent"])
def test_temperature_rises_while_entropy_is_too_low_and_falls_while_it_is_too_high(kind: str) -> None:
    before, risen = trained_temperature(50.0, temperature=kind)
    _, fallen = trained_temperature(-50.0, temperature=kind)
    assert (risen > before * 1.1).all()
    assert (fallen < before * 0.9).all()


def test_a_tuned_temperature_starts_where_it_is_told_and_moves_at_its_own_rate() -> None:
    before, after = trained_temperature(50.0, updates=1, temperature="tuned", temperature_learning_rate=0.1)
    np.testing.assert_allclose(before, 0.5, rtol=1e-5)
    np.testing.assert_allclose(after, 0.5 * np.exp(0.1), rtol=1e-4)  # Adam's first step is the rate, on the logarithm


def test_a_fixed_temperature_never_moves() -> None:
    before, after = trained_temperature(50.0, temperature="fixed")
    assert torch.equal(before, after)
    np.testing.assert_allclose(after, 0.5, rtol=1e-5)


def test_a_latent_temperature_tells_beliefs_apart() -> None:
    before, after = trained_temperature(50.0, temperature="latent")
    assert float(before.std()) > 0
    assert float(after.std()) > 0


def test_the_target_entropy_is_minus_the_action_entries_times_the_factor() -> None:
    learner = SoftActorCritic(ActorCritic(hidden=(4,), target_entropy_factor=0.25, fraction_count=2, cosines=2), 3, 1, 6, generator_of(0))
    assert learner.target_entropy == -1.5
