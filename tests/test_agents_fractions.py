"""Quantile fractions: how they are drawn, and how proposed ones learn (FQF)."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from agent_references import array, network, softmax
from toy_problem import generator_of

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.agents.critics import Fractions, draw_fractions
from dmrlad_bench.cards.agent_sections import ActorCritic


def config_of(**changes: Any) -> ActorCritic:
    return ActorCritic.model_validate({"hidden": (6, 5), "fraction_count": 5, "cosines": 4, **changes})


def assert_partition(fractions: Fractions) -> None:
    """Positive widths that sum to 1, and the middles of the cells that they cut [0, 1] into."""
    weights = array(fractions.weights)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    edges = np.concatenate([np.zeros((*weights.shape[:-1], 1)), np.cumsum(weights, -1)], -1)
    np.testing.assert_allclose(array(fractions.midpoints), (edges[..., 1:] + edges[..., :-1]) / 2, atol=1e-6)


def test_drawn_fractions_are_normalised_uniforms_above_a_tenth() -> None:
    fractions = draw_fractions(4000, config_of(), generator_of(0))
    assert fractions.weights.shape == (4000, 5)
    assert_partition(fractions)
    weights = array(fractions.weights)
    assert (weights.max(-1) / weights.min(-1)).max() <= 11.0
    drawn = np.random.default_rng(0).random((200_000, 5)) + 0.1
    expected = drawn / drawn.sum(-1, keepdims=True)
    np.testing.assert_allclose(weights.mean(0), 0.2, atol=4e-3)
    assert weights.std() == pytest.approx(expected.std(), rel=0.03)
    assert len(np.unique(weights[:, 0])) > 3900  # every member of the batch has its own


def test_fixed_fractions_are_equal_and_shared() -> None:
    fractions = draw_fractions(7, config_of(fractions="fixed"), generator_of(0))
    torch.testing.assert_close(fractions.weights, torch.full((1, 5), 0.2))
    torch.testing.assert_close(fractions.midpoints, torch.tensor([[0.1, 0.3, 0.5, 0.7, 0.9]]))


def test_a_shared_draw_is_one_row_and_changes_from_draw_to_draw() -> None:
    generator = generator_of(0)
    first, second = (draw_fractions(7, config_of(shared_fractions=True), generator) for _ in range(2))
    assert first.weights.shape == (1, 5)
    assert_partition(first)
    assert not torch.equal(first.weights, second.weights)


class KnownReturns(torch.nn.Module):
    """Twins of one return distribution with quantile function offset + 3 tau^2 + tau, shifted a little between the twins."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(()))

    def forward(self, state: torch.Tensor, action: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        values = self.offset + 3 * tau.expand(len(state), -1) ** 2 + tau
        return torch.stack([values - 0.1, values + 0.1])


def wasserstein(weights: np.ndarray) -> float:
    """1-Wasserstein distance between the distribution and its staircase on cells of the given widths.

    Within a cell the quantile function lies below its middle value on the left half and above it on the right half, so the
    distance is F(upper) + F(lower) - 2 F(middle) with F the integral of the quantile function.
    """
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    middle = (edges[1:] + edges[:-1]) / 2

    def integral(tau: np.ndarray) -> np.ndarray:
        return tau**3 + tau**2 / 2

    return float((integral(edges[1:]) + integral(edges[:-1]) - 2 * integral(middle)).sum())


def random_batch(size: int = 3) -> Batch:
    drawn = generator_of(5)

    def normal(width: int) -> torch.Tensor:
        return torch.randn(size, width, generator=drawn)

    return Batch(normal(3), normal(3), normal(1), torch.tanh(normal(2)), normal(1).squeeze(-1), torch.zeros(size))


def learner_of_known_returns(**changes: Any) -> SoftActorCritic:
    learner = SoftActorCritic(config_of(fractions="learned", **changes), 3, 1, 2, generator_of(1))
    learner.critics = KnownReturns()  # pyright: ignore[reportAttributeAccessIssue]
    learner.target_critics = copy.deepcopy(learner.critics)
    learner.critic_optimiser = torch.optim.SGD(learner.critics.parameters(), lr=0.0)  # pyright: ignore[reportAttributeAccessIssue]
    return learner


def test_the_proposal_follows_the_gradient_of_the_wasserstein_distance() -> None:
    learner, batch = learner_of_known_returns(), random_batch()
    assert learner.proposal is not None
    assert_partition(learner.proposal(batch.state, batch.action))
    before = copy.deepcopy(learner.proposal.network)
    learner.update(batch, generator_of(2))
    inputs = np.concatenate([array(batch.state), array(batch.action)], -1)
    logits = network(before, inputs)
    bias_gradient = np.zeros(logits.shape[-1])
    step = 1e-5
    for row in logits:  # the gradient with respect to the last bias is that with respect to the logits
        for entry in range(len(row)):
            change = np.eye(len(row))[entry] * step
            bias_gradient[entry] += (wasserstein(softmax(row + change)) - wasserstein(softmax(row - change))) / (2 * step) / len(logits)
    last = list(learner.proposal.network.children())[-1]
    np.testing.assert_allclose(array(last.bias.grad), bias_gradient, rtol=1e-3, atol=1e-6)  # pyright: ignore[reportAttributeAccessIssue]


def test_proposed_fractions_come_closer_to_the_distribution() -> None:
    learner, batch = learner_of_known_returns(fraction_learning_rate=3e-2), random_batch()
    assert learner.proposal is not None

    def distance() -> float:
        assert learner.proposal is not None
        return float(np.mean([wasserstein(array(row)) for row in learner.proposal(batch.state, batch.action).weights]))

    before = distance()
    for update in range(60):
        learner.update(batch, generator_of(update))
    best = min(wasserstein(softmax(np.linspace(0, slope, 5))) for slope in np.linspace(-3, 1, 81))
    assert distance() < before
    assert distance() == pytest.approx(best, rel=0.05)


def test_learned_fractions_train_and_are_saved() -> None:
    learner, batch = SoftActorCritic(config_of(fractions="learned"), 3, 1, 2, generator_of(1)), random_batch(8)
    other = SoftActorCritic(config_of(fractions="learned"), 3, 1, 2, generator_of(2))
    start = copy.deepcopy(learner.state_dict()["proposal"])
    metrics = learner.update(batch, generator_of(3))
    assert np.isfinite(float(metrics["fractions"]))
    assert any(not torch.equal(value, start[name]) for name, value in learner.state_dict()["proposal"].items())
    other.load_state_dict(copy.deepcopy(learner.state_dict()))
    for entry in (learner, other):
        entry.update(batch, generator_of(4))
    for name, value in learner.state_dict()["proposal"].items():
        assert torch.equal(value, other.state_dict()["proposal"][name])
