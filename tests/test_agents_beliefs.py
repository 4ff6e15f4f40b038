"""Beliefs by prefix sums, and as they are lived, against one window at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from agent_references import window_belief
from toy_problem import generator_of

from dmrlad_bench.agents.belief import Belief, window_sums
from dmrlad_bench.agents.encoder import ContextEncoder, OnlineContext
from dmrlad_bench.cards.agent_sections import Inference

TRANSITION_DIM = 4
DESIGNS = [
    (encoder, merge, window)
    for encoder in ("shared_class", "per_transition_class")
    for merge in ("mean", "softmax_of_sum", "softmax_of_product", "linear", "mlp")
    for window in (0, 1, 10)
    if window or merge not in ("linear", "mlp")
] + [("trajectory", "mean", 1), ("trajectory", "mean", 10)]
every_design = pytest.mark.parametrize(("kind", "merge", "window"), DESIGNS)


def encoder_of(kind: str, merge: str, window: int, seed: int = 0) -> ContextEncoder:
    """An encoder of three classes whose heads are spread out, so that no two classes or transitions look alike."""
    content = {
        "encoder": kind,
        "merge": merge,
        "window": window,
        "classes": 3,
        "latent_dim": 2,
        "encoder_hidden": (6, 5),
        "prior": "learned",
    }
    encoder = ContextEncoder(Inference.model_validate(content), TRANSITION_DIM, generator_of(seed))
    with torch.no_grad():
        encoder.class_head.weight.mul_(3.0)
        encoder.gaussian_head.weight.mul_(3.0)
        encoder.prior.mean.add_(torch.randn(3, 2, generator=generator_of(seed + 1)))
        encoder.prior.raw_deviation.add_(torch.randn(3, 2, generator=generator_of(seed + 2)))
    return encoder


def assert_belief(belief: Belief, index: tuple[int, ...], expected: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    for ours, theirs in zip((belief.classes, belief.mean, belief.deviation), expected, strict=True):
        np.testing.assert_allclose(ours[index].numpy(), theirs, rtol=3e-4, atol=3e-5)


@every_design
def test_along_equals_every_window_by_itself(kind: str, merge: str, window: int) -> None:
    encoder = encoder_of(kind, merge, window)
    steps, lengths = 23, (23, 14, 1)
    transitions = torch.randn(3, steps, TRANSITION_DIM, generator=generator_of(5))
    valid = torch.arange(steps) < torch.tensor(lengths).unsqueeze(-1)
    with torch.no_grad():
        along = encoder.along(encoder.rows(transitions, valid))
    assert along.mean.shape == (3, steps + 1, 3, 2)
    for trial, length in enumerate(lengths):
        for step in range(length + 1):
            first = max(0, step - window) if window else 0
            assert_belief(along, (trial, step), window_belief(encoder, transitions[trial, first:step].numpy()))


@every_design
def test_entries_that_are_not_valid_leave_no_trace(kind: str, merge: str, window: int) -> None:
    """A stretch that begins before its trial: masked entries lie *in front*, and may hold anything."""
    encoder = encoder_of(kind, merge, window)
    transitions = torch.randn(2, 12, TRANSITION_DIM, generator=generator_of(6))
    valid = torch.arange(12) >= 4
    changed = transitions.clone()
    changed[:, :4] = 1e3
    with torch.no_grad():
        first, second = (encoder.along(encoder.rows(part, valid.expand(2, 12))) for part in (transitions, changed))
    for step in range(4, 13):
        start = max(4, step - window) if window else 4
        expected = window_belief(encoder, transitions[0, start:step].numpy())
        assert_belief(first, (0, step), expected)
        assert_belief(second, (0, step), expected)


@every_design
def test_lived_beliefs_equal_stored_ones(kind: str, merge: str, window: int) -> None:
    """Acting and training use one belief: step by step, past the window's length, with environments that wait now and then."""
    encoder, envs, steps = encoder_of(kind, merge, window), 4, 26
    drawn = generator_of(7)
    active = torch.rand((steps, envs), generator=drawn) < torch.tensor([1.0, 0.7, 0.3, 0.0])
    offered = torch.randn(steps, envs, TRANSITION_DIM, generator=drawn)
    context = OnlineContext(encoder, TRANSITION_DIM, envs)
    lived: list[list[torch.Tensor]] = [[] for _ in range(envs)]
    seen = []
    for step in range(steps):
        seen.append(context.belief())
        context.add(offered[step], active[step])
        for env in range(envs):
            if active[step, env]:
                lived[env].append(offered[step, env])
    seen.append(context.belief())
    for env in range(envs):
        count = len(lived[env])
        rows = torch.stack(lived[env]) if count else torch.zeros(0, TRANSITION_DIM)
        padded = torch.nn.functional.pad(rows, (0, 0, 0, steps - count))
        with torch.no_grad():
            along = encoder.along(encoder.rows(padded, torch.arange(steps) < count))
        so_far = 0
        for step in range(steps + 1):
            expected = tuple(part[so_far].numpy() for part in (along.classes, along.mean, along.deviation))
            assert_belief(seen[step], (env,), expected)  # pyright: ignore[reportArgumentType]
            so_far += int(step < steps and bool(active[step, env]))


@pytest.mark.parametrize("window", [0, 4])
def test_what_an_inactive_environment_reports_is_ignored(window: int) -> None:
    encoder = encoder_of("shared_class", "mean", window)
    context = OnlineContext(encoder, TRANSITION_DIM, 2)
    context.add(torch.ones(2, TRANSITION_DIM), torch.tensor([True, True]))
    before = context.belief()
    context.add(torch.tensor([[1.0] * TRANSITION_DIM, [float("nan")] * TRANSITION_DIM]), torch.tensor([True, False]))
    after = context.belief()
    for old, new in zip((before.classes, before.mean, before.deviation), (after.classes, after.mean, after.deviation), strict=True):
        torch.testing.assert_close(new[1], old[1])
    assert not torch.equal(before.mean[0], after.mean[0])


def test_the_five_merges_are_five_different_merges() -> None:
    """Merges without weights of their own are compared directly; the other two have weights, so they differ by construction."""
    transitions = torch.randn(1, 6, TRANSITION_DIM, generator=generator_of(8))
    classes = {}
    for merge in ("mean", "softmax_of_sum", "softmax_of_product"):
        encoder = encoder_of("shared_class", merge, 6)
        with torch.no_grad():
            classes[merge] = encoder.along(encoder.rows(transitions, torch.ones(1, 6))).classes[0, -1]
    names = list(classes)
    same = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :] if torch.allclose(classes[a], classes[b], atol=1e-4)]
    assert not same


def test_window_sums_keep_small_rows_behind_a_huge_one() -> None:
    """Prefix sums cancel; in float32 the rows behind 1e6 would be lost."""
    rows = torch.full((40, 1), 1e-3)
    rows[0] = 1e6
    sums = window_sums(rows, 5)
    assert sums.dtype == torch.float32
    np.testing.assert_allclose(sums[6:, 0].numpy(), 5e-3, rtol=1e-4)
    np.testing.assert_allclose(sums[:6, 0].numpy(), [0.0, *(1e6 + 1e-3 * np.arange(5))], rtol=1e-6)


def test_gradients_reach_every_transition_of_the_window_and_no_other() -> None:
    encoder = encoder_of("shared_class", "mean", 3)
    transitions = torch.randn(1, 8, TRANSITION_DIM, generator=generator_of(9), requires_grad=True)
    encoder.along(encoder.rows(transitions, torch.ones(1, 8))).mean[0, 6].sum().backward()
    assert transitions.grad is not None
    reached = transitions.grad[0].abs().sum(-1) > 1e-9
    assert reached.tolist() == [False, False, False, True, True, True, False, False]
