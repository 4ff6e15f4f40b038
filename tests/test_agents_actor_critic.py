"""The soft actor-critic update against a float64 re-implementation from the formulas, for both critics."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from actor_critic_reference import NETWORKS, Recording, Reference
from agent_references import array, network
from torch import Tensor
from toy_problem import generator_of

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.cards.agent_sections import ActorCritic

STATE_DIM, BELIEF_DIM, ACTION_DIM = 4, 1, 2


def learner_of(seed: int = 0, **changes: Any) -> SoftActorCritic:
    content = {"hidden": (7, 6), "fraction_count": 5, "cosines": 4, "learning_rate": 1e-2, "temperature_learning_rate": 1e-2, **changes}
    learner = SoftActorCritic(ActorCritic.model_validate(content), STATE_DIM, BELIEF_DIM, ACTION_DIM, generator_of(seed))
    with torch.no_grad():  # targets that differ from the online networks, so that one cannot stand in for the other
        for name in ("target_policy", "target_critics"):
            for parameter in getattr(learner, name).parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator_of(seed + 9)))
    return learner


def batch_of(seed: int = 0, size: int = 12) -> Batch:
    drawn = generator_of(seed)
    state, following = torch.randn(size, STATE_DIM, generator=drawn), torch.randn(size, STATE_DIM, generator=drawn)
    action = torch.tanh(torch.randn(size, ACTION_DIM, generator=drawn))
    return Batch(
        state,
        following,
        state[:, -BELIEF_DIM:],
        action,
        torch.randn(size, generator=drawn),
        (torch.rand(size, generator=drawn) < 0.3).float(),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"critic": "scalar"},
        {"critic": "scalar", "critic_norm": "none"},
        {"critic": "quantile"},
        {"critic": "quantile", "fractions": "fixed"},
    ],
)
def test_three_updates_equal_the_reference(changes: dict[str, Any]) -> None:
    learner = learner_of(initial_temperature=0.3, discount=0.9, polyak=0.3, target_entropy_factor=0.5, **changes)
    recording, reference, generator = Recording(learner), Reference(learner), generator_of(3)
    for update in range(3):
        batch = batch_of(update)
        metrics = learner.update(batch, generator)
        loss = reference.update(batch, recording)
        assert float(metrics["critic"]) == pytest.approx(loss, rel=1e-3)
        for name in ("critics", "policy"):  # the critics' `.grad` is that of their own loss alone: the policy's pass added nothing
            for ours, theirs in zip(getattr(learner, name).parameters(), reference.gradients[name], strict=True):
                np.testing.assert_allclose(array(ours.grad), theirs.numpy(), rtol=2e-2, atol=2e-4)
        assert all(parameter.requires_grad for parameter in learner.critics.parameters())
        assert all(parameter.grad is None for name in NETWORKS[2:] for parameter in getattr(learner, name).parameters())
        for name in NETWORKS:
            for ours, theirs in zip(getattr(learner, name).parameters(), reference.parameters[name], strict=True):
                np.testing.assert_allclose(array(ours), theirs.numpy(), atol=2e-3)
        assert float(learner.temperature(batch.belief).detach()) == pytest.approx(math.exp(reference.log_alpha), rel=1e-3)


def critics_after_one_update(batch: Batch, **changes: Any) -> list[Tensor]:
    learner = learner_of(critic="scalar", fraction_count=5, **changes)
    learner.update(batch, generator_of(1))
    return [parameter.detach() for parameter in learner.critics.parameters()]


def test_bootstrapping_stops_at_termination_only() -> None:
    batch = batch_of()
    elsewhere = replace(batch, next_state=batch.next_state + 5.0)
    for over, same in ((torch.ones(12), True), (torch.zeros(12), False)):
        first, second = (critics_after_one_update(replace(part, terminated=over)) for part in (batch, elsewhere))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True)) == same


@pytest.mark.parametrize("critic", ["scalar", "quantile"])
def test_targets_start_as_copies_and_follow_slowly(critic: str) -> None:
    config = ActorCritic.model_validate({"critic": critic, "hidden": (5, 4), "fraction_count": 3, "cosines": 3})
    learner = SoftActorCritic(config, STATE_DIM, BELIEF_DIM, ACTION_DIM, generator_of(0))
    for name in ("policy", "critics"):
        online, target = (dict(getattr(learner, kind).named_parameters()) for kind in (name, f"target_{name}"))
        for key, value in online.items():
            assert torch.equal(value, target[key])
            assert value.data_ptr() != target[key].data_ptr()
            assert not target[key].requires_grad
    start = copy.deepcopy(learner.target_policy.state_dict())
    learner.update(batch_of(), generator_of(0))
    for key, value in learner.policy.state_dict().items():
        torch.testing.assert_close(learner.target_policy.state_dict()[key], 0.995 * start[key] + 0.005 * value)


def test_twins_are_two_different_critics() -> None:
    learner = learner_of(critic="scalar")
    both = array(learner.critics(batch_of().state, batch_of().action))
    assert both.shape == (2, 12)
    assert np.abs(both[0] - both[1]).min() > 1e-4
    value = learner.value(batch_of().state, batch_of().action, generator_of(0))
    np.testing.assert_allclose(array(value), both.min(0), rtol=1e-6)


def test_the_quantile_critic_has_one_answer_for_every_fraction_whatever_the_others_are() -> None:
    learner, batch = learner_of(), batch_of()
    tau = torch.rand(12, 5, generator=generator_of(1))
    together = learner.critics(batch.state, batch.action, tau)
    alone = torch.cat([learner.critics(batch.state, batch.action, tau[:, [i]]) for i in range(5)], -1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    shared = learner.critics(batch.state, batch.action, tau[:1])
    torch.testing.assert_close(shared, learner.critics(batch.state, batch.action, tau[:1].expand(12, -1)), rtol=1e-4, atol=1e-5)


def test_a_scalar_trunk_is_the_configured_network() -> None:
    learner, batch = learner_of(critic="scalar", hidden=(7, 6, 5)), batch_of()
    inputs = np.concatenate([array(batch.state), array(batch.action)], -1)
    for twin in range(2):
        expected = network(learner.critics[twin].trunk, inputs).squeeze(-1)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        np.testing.assert_allclose(array(learner.critics(batch.state, batch.action)[twin]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"critic": "scalar"},
        {"temperature": "latent"},
        {"temperature": "fixed"},
        {"risk": "cvar", "risk_parameter": 0.5},
        {"averaging": 0.4},
    ],
)
def test_a_restored_learner_goes_on_the_same(changes: dict[str, Any]) -> None:
    first, second = learner_of(0, **changes), learner_of(1, **changes)
    for update in range(2):
        first.update(batch_of(update), generator_of(update))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.updates == 2
    for learner in (first, second):
        learner.update(batch_of(5), generator_of(5))
    for name in NETWORKS:
        for one, other in zip(getattr(first, name).parameters(), getattr(second, name).parameters(), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(first.temperature(batch_of().belief), second.temperature(batch_of().belief))
    assert torch.equal(first.act(batch_of().state, generator_of(0), True), second.act(batch_of().state, generator_of(0), True))


def test_deterministic_actions_are_those_of_the_average_of_policies() -> None:
    """The plain mean of the first policies, then a running one; draws stay those of the newest policy."""
    rate, learner, generator = 0.3, learner_of(averaging=0.3), generator_of(3)
    expected = [torch.zeros_like(parameter) for parameter in learner.policy.parameters()]
    for update in range(1, 7):
        learner.update(batch_of(update), generator)
        weight = max(rate, 1 / update)
        expected = [(1 - weight) * old + weight * new.detach() for old, new in zip(expected, learner.policy.parameters(), strict=True)]
    state = batch_of(9).state
    newest = learner_of()
    newest.policy.load_state_dict(learner.policy.state_dict())
    torch.testing.assert_close(learner.act(state, generator_of(1), False), newest.act(state, generator_of(1), False))
    assert not torch.allclose(learner.act(state, generator, True), newest.act(state, generator, True))
    with torch.no_grad():
        for parameter, mean in zip(newest.policy.parameters(), expected, strict=True):
            parameter.copy_(mean)
    torch.testing.assert_close(learner.act(state, generator, True), newest.act(state, generator, True))
