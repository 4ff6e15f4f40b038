"""Risk measures: distortions against finite differences, values against NumPy and against closed forms of the normal distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import norm
from toy_problem import generator_of

from dmrlad_bench.agents.actor_critic import SoftActorCritic
from dmrlad_bench.agents.critics import Fractions, distortion_weights, risk_value, scheduled_risk
from dmrlad_bench.cards.agent_sections import ActorCritic

CASES = [("neutral", 0.0), ("cvar", 0.25), ("cvar", 1.0), ("wang", 0.75), ("wang", -0.5), ("cpw", 0.71), ("cpw", 1.0), ("cpw", 1.6)]


def distortion(tau: np.ndarray, measure: str, eta: float) -> np.ndarray:
    """The distortion functions themselves."""
    if measure == "neutral":
        return tau
    if measure == "cvar":
        return np.minimum(tau / eta, 1.0)
    if measure == "wang":
        return norm.cdf(norm.ppf(tau) + eta)
    return tau**eta / (tau**eta + (1 - tau) ** eta) ** (1 / eta)


@pytest.mark.parametrize(("measure", "eta"), CASES)
def test_weights_are_the_derivative_of_the_distortion(measure: str, eta: float) -> None:
    tau = np.linspace(0.011, 0.989, 200)
    tau = tau[np.abs(tau - eta) > 1e-3]  # CVaR has a kink at eta
    step = 1e-6
    expected = (distortion(tau + step, measure, eta) - distortion(tau - step, measure, eta)) / (2 * step)
    np.testing.assert_allclose(distortion_weights(torch.as_tensor(tau), measure, eta).numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("measure", "eta"), CASES)
def test_weights_integrate_to_one(measure: str, eta: float) -> None:
    tau = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    assert float(distortion_weights(tau, measure, eta).mean()) == pytest.approx(1.0, abs=2e-3)


def test_weights_in_single_precision_are_finite_at_both_ends() -> None:
    tau = torch.tensor([1e-6, 1e-3, 0.5, 1 - 1e-3, 1 - 1e-6])
    for measure, eta in CASES:
        weights = distortion_weights(tau, measure, eta)
        assert weights.shape == tau.shape
        assert torch.isfinite(weights).all()
        assert (weights >= 0).all()


@pytest.mark.parametrize(
    ("measure", "eta"), [("cvar", 0.0), ("cvar", -0.1), ("cvar", 1.5), ("cpw", 0.0), ("cpw", -1.0), ("var", 0.5), ("mode", 0.5)]
)
def test_bad_measures_and_parameters_are_errors(measure: str, eta: float) -> None:
    with pytest.raises(ValueError, match=measure):
        distortion_weights(torch.tensor([0.5]), measure, eta)


@pytest.mark.parametrize(("risk", "parameter"), [("cvar", 0.0), ("var", 1.1), ("cpw", 0.0)])
def test_cards_refuse_them_too(risk: str, parameter: float) -> None:
    with pytest.raises(ValidationError, match="risk_parameter"):
        ActorCritic.model_validate({"risk": risk, "risk_parameter": parameter})


def test_a_scalar_critic_has_no_risk_measure() -> None:
    with pytest.raises(ValidationError, match="quantile"):
        ActorCritic(critic="scalar", risk="cvar", risk_parameter=0.5)


def random_distribution(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, midpoints and quantile values, each `(3, 6)`."""
    drawn = np.random.default_rng(seed)
    weights = drawn.random((3, 6)) + 0.1
    weights /= weights.sum(-1, keepdims=True)
    return weights, np.cumsum(weights, -1) - weights / 2, np.sort(5 * drawn.normal(size=(3, 6)), -1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("measure", "eta"), [*CASES, ("mean_std", 0.8)])
def test_values_equal_weighted_sums(seed: int, measure: str, eta: float) -> None:
    weights, middle, values = random_distribution(seed)
    if measure == "mean_std":
        mean = (weights * values).sum(-1)
        expected = mean - eta * np.sqrt((weights * (values - mean[:, None]) ** 2).sum(-1))
    else:
        step = 1e-7
        slope = (distortion(middle + step, measure, eta) - distortion(middle - step, measure, eta)) / (2 * step)
        expected = (weights * slope * values).sum(-1) / (weights * slope).sum(-1)
    fractions = Fractions(torch.as_tensor(weights), torch.as_tensor(middle))
    np.testing.assert_allclose(risk_value(torch.as_tensor(values), fractions, measure, eta).numpy(), expected, rtol=1e-6)


def test_values_of_a_normal_distribution_are_the_known_ones() -> None:
    mean, deviation, count = 2.0, 3.0, 20_000
    fractions = Fractions.from_weights(torch.full((1, count), 1 / count, dtype=torch.float64))
    values = torch.as_tensor(mean + deviation * norm.ppf(fractions.midpoints.numpy()))
    expected = {
        ("neutral", 0.0): mean,
        ("cvar", 0.25): mean - deviation * norm.pdf(norm.ppf(0.25)) / 0.25,
        ("wang", 0.75): mean - 0.75 * deviation,  # Wang's transform shifts a normal distribution
        ("wang", -0.75): mean + 0.75 * deviation,
        ("mean_std", 0.5): mean - 0.5 * deviation,
    }
    for (measure, eta), value in expected.items():
        assert float(risk_value(values, fractions, measure, eta)) == pytest.approx(value, abs=5e-3), measure


def test_a_tail_thinner_than_the_first_fraction_is_the_lowest_quantile() -> None:
    fractions = Fractions.from_weights(torch.full((2, 4), 0.25))
    values = torch.tensor([[-3.0, 0.0, 1.0, 2.0], [5.0, 6.0, 7.0, 8.0]])
    torch.testing.assert_close(risk_value(values, fractions, "cvar", 0.05), torch.tensor([-3.0, 5.0]))


def test_schedules_are_linear_and_stop() -> None:
    config = ActorCritic(risk="cvar", risk_parameter=1.0, risk_parameter_end=0.2, risk_updates=100)
    assert [scheduled_risk(config, update) for update in (0, 25, 100, 1000)] == pytest.approx([1.0, 0.8, 0.2, 0.2])
    assert scheduled_risk(ActorCritic(risk="cvar", risk_parameter=0.3), 10**6) == 0.3


class KnownReturns(torch.nn.Module):
    """Twin critics whose return distributions are normal: N(state sum, 1) and N(action sum, 2)."""

    def forward(self, state: torch.Tensor, action: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        normal = torch.special.ndtri(tau.expand(len(state), -1))
        return torch.stack([state.sum(-1, keepdim=True) + normal, action.sum(-1, keepdim=True) + 2 * normal])


def value_of(state: float, action: float, updates: int = 0, mean_of: int | None = None, **changes: Any) -> float:
    config = ActorCritic.model_validate({"hidden": (4,), "fraction_count": 4000, "fractions": "fixed", **changes})
    learner = SoftActorCritic(config, 1, 0, 1, generator_of(0))
    learner.critics, learner.updates = KnownReturns(), updates  # pyright: ignore[reportAttributeAccessIssue]
    parts = torch.tensor([[state]]), torch.tensor([[action]])
    return float(learner.mean_value(*parts, generator_of(1), mean_of) if mean_of else learner.value(*parts, generator_of(1)))


def test_the_value_of_an_action_is_that_of_the_pessimistic_twin() -> None:
    assert value_of(-50.0, 3.0) == pytest.approx(-50.0, abs=1e-2)
    assert value_of(50.0, 3.0) == pytest.approx(3.0, abs=1e-2)
    lowest = norm.ppf((np.arange(4000) + 0.5) / 4000)
    expected = np.minimum(lowest, 2 * lowest).mean()  # the minimum of every quantile, then the mean
    assert value_of(0.0, 0.0) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("fractions", ["iqn", "fixed", "learned"])
def test_value_at_risk_is_one_quantile(fractions: str) -> None:
    changes = {"risk": "var", "risk_parameter": 0.1, "fractions": fractions, "fraction_count": 8}
    assert value_of(50.0, 3.0, **changes) == pytest.approx(3.0 + 2 * norm.ppf(0.1), abs=1e-3)


def test_risk_is_scheduled_by_updates_and_can_be_switched_off() -> None:
    changes = {"risk": "wang", "risk_parameter": 0.0, "risk_parameter_end": 1.0, "risk_updates": 10}
    for updates, shift in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        assert value_of(50.0, 3.0, updates, **changes) == pytest.approx(3.0 - 2 * shift, abs=0.02)
    assert value_of(50.0, 3.0, 10, mean_of=200, **changes) == pytest.approx(3.0, abs=1e-2)
    assert value_of(50.0, 3.0, 0, mean_of=200, risk="var", risk_parameter=0.01) == pytest.approx(3.0, abs=1e-2)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_gauss_rule_is_exact_for_polynomials_up_to_its_degree_and_not_beyond(count: int) -> None:
    rule = Fractions.gauss(count, torch.device("cpu"))
    assert rule.weights.shape == rule.midpoints.shape == (1, count)
    for degree in range(2 * count):
        assert float((rule.weights * rule.midpoints**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-6)
    beyond = float((rule.weights * rule.midpoints ** (2 * count)).sum())
    assert abs(beyond - 1 / (2 * count + 1)) > 1e-6


def test_two_fractions_of_the_gauss_rule_come_nearer_to_a_smooth_mean_than_four_even_ones() -> None:
    mean = float(np.expm1(3.0) / 3)  # of exp(3 tau) over [0, 1]
    errors = []
    for rule in (Fractions.gauss(2, torch.device("cpu")), Fractions.even(4, torch.device("cpu"))):
        errors.append(abs(float(risk_value(torch.exp(3 * rule.midpoints), rule, "neutral", 0.0)) - mean))
    assert errors[0] < 0.7 * errors[1]


def test_a_mean_over_a_few_fractions_is_that_of_the_gauss_rule() -> None:
    """Of a normal distribution's quantile function it is exact by symmetry; of the smaller of two it is what the rule gives."""
    for count in (1, 2, 5):
        assert value_of(50.0, 3.0, mean_of=count) == pytest.approx(3.0, abs=1e-5)
        node, weight = np.polynomial.legendre.leggauss(count)
        lowest = norm.ppf((node + 1) / 2)
        assert value_of(0.0, 0.0, mean_of=count) == pytest.approx(weight @ np.minimum(lowest, 2 * lowest) / 2, abs=1e-5)


def test_cautious_measures_lower_a_value_and_a_certain_return_has_none() -> None:
    fractions = Fractions.from_weights(torch.full((1, 200), 1 / 200, dtype=torch.float64))
    spread, certain = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(0), torch.full((1, 200), 0.4, dtype=torch.float64)
    for measure, eta in (("cvar", 0.3), ("wang", 0.5), ("mean_std", 1.0)):
        assert float(risk_value(spread, fractions, measure, eta)) < -0.2
        assert float(risk_value(certain, fractions, measure, eta)) == pytest.approx(0.4, abs=1e-5)
    assert math.isclose(float(risk_value(spread, fractions, "neutral", 0.0)), 0.0, abs_tol=1e-9)
