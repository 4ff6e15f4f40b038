"""Exploration: the colour of noise by its spectrum, constant directions, and who is driven by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_problem import small_config, toy_problem

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.exploration import NoiseActions, PolicyNoise, coloured_noise
from dmrlad_bench.cards.agent_sections import Exploration


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_the_spectrum_falls_with_the_exponent(exponent: float) -> None:
    series = coloured_noise(np.full(200, exponent), 1, 2048, np.random.default_rng(0))[..., 0]
    power = (np.abs(np.fft.rfft(series * np.hanning(2048), axis=-1)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(2048)
    band = (frequency > 5e-3) & (frequency < 0.25)
    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.1)


def test_every_series_and_component_has_unit_root_mean_square() -> None:
    exponents = np.linspace(0, 2, 9)
    series = coloured_noise(exponents, 3, 50, np.random.default_rng(0))
    assert series.shape == (9, 50, 3)
    np.testing.assert_allclose(np.sqrt((series**2).mean(1)), 1.0, rtol=1e-6)


def test_brownian_noise_wanders_and_white_noise_does_not() -> None:
    """What sparse tasks need: the distance that a point covers under twenty such actions."""
    reach = {}
    for exponent in (0.0, 2.0):
        series = coloured_noise(np.full(500, exponent), 2, 20, np.random.default_rng(1))
        reach[exponent] = np.median(np.linalg.norm(series.clip(-1, 1).cumsum(1), axis=-1).max(-1))
    assert reach[2.0] > 1.8 * reach[0.0]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_shortest_series(steps: int) -> None:
    assert np.isfinite(coloured_noise(np.array([0.0, 2.0]), 2, steps, np.random.default_rng(0))).all()


def noise_of(chosen: np.ndarray, horizon: int = 8, seed: int = 0, **changes: Any) -> NoiseActions:
    return NoiseActions(Exploration.model_validate(changes), chosen, 2, horizon, np.random.default_rng(seed))


def played(noise: NoiseActions, steps: int) -> np.ndarray:
    """Actions `(steps, num_envs, 2)` when the policy says 9."""
    return np.stack([noise.replace(np.full((len(noise.chosen), 2), 9.0)) for _ in range(steps)])


def test_only_chosen_trials_are_driven() -> None:
    chosen = np.array([True, False, True, False])
    actions = played(noise_of(chosen), 8)
    assert (actions[:, ~chosen] == 9.0).all()
    assert (np.abs(actions[:, chosen]) <= 1.0).all()
    assert (actions[:, 0] != actions[:, 2]).any()


def test_constant_directions_are_held_for_an_episode_and_reach_the_border() -> None:
    noise = noise_of(np.ones(300, dtype=bool), constant_share=1.0)
    first = played(noise, 8)
    assert (first == first[0]).all()
    np.testing.assert_allclose(np.abs(first[0]).max(-1), 1.0, rtol=1e-6)
    angles = np.histogram(np.arctan2(first[0, :, 1], first[0, :, 0]), bins=4, range=(-np.pi, np.pi))[0]
    assert angles.min() > 50  # all directions, not one quadrant
    noise.begin_episode()
    second = played(noise, 8)
    assert (second == second[0]).all()
    assert (first[0] != second[0]).any(-1).all()


def test_the_share_of_constant_directions_is_that_of_the_card() -> None:
    actions = played(noise_of(np.ones(2000, dtype=bool), constant_share=0.3), 8)
    assert (actions == actions[0]).all((0, 2)).mean() == pytest.approx(0.3, abs=0.04)


def test_colours_lie_between_the_card_s_two() -> None:
    """White noise has no memory, Brownian noise has: the correlation of neighbouring steps tells them apart."""
    memory = {}
    for low, high in ((0.0, 0.0), (2.0, 2.0), (0.0, 2.0)):
        actions = played(noise_of(np.ones(400, dtype=bool), 64, colour_low=low, colour_high=high), 64)
        memory[low, high] = [np.corrcoef(actions[:-1, env, 0], actions[1:, env, 0])[0, 1] for env in range(400)]
    assert np.mean(memory[0.0, 0.0]) < 0.1
    assert np.mean(memory[2.0, 2.0]) > 0.8
    assert np.mean(memory[0.0, 0.0]) + 0.2 < np.mean(memory[0.0, 2.0]) < np.mean(memory[2.0, 2.0]) - 0.1
    assert np.std(memory[0.0, 2.0]) > np.std(memory[2.0, 2.0])


def test_noise_is_that_of_the_generator_and_new_in_every_episode() -> None:
    chosen = np.ones(3, dtype=bool)
    first, same, other = (noise_of(chosen, seed=seed) for seed in (0, 0, 1))
    one = played(first, 8)
    np.testing.assert_array_equal(one, played(same, 8))
    assert not np.array_equal(one, played(other, 8))
    first.begin_episode()
    assert not np.array_equal(one, played(first, 8))


def test_policy_noise_is_of_its_colour_and_new_in_every_episode() -> None:
    def slow_share(colour: float) -> float:
        """Power in the slowest tenth of the frequencies."""
        noise = PolicyNoise(colour, (40, 3, 200), np.random.default_rng(0))
        power = np.abs(np.fft.rfft(np.stack([noise.next() for _ in range(200)], 1), axis=1)[:, 1:]) ** 2
        return float(power[:, :10].sum() / power.sum())

    assert slow_share(0.0) == pytest.approx(0.1, abs=0.02)
    assert slow_share(1.0) > 0.4
    noise = PolicyNoise(1.0, (2, 3, 5), np.random.default_rng(0))
    first = [noise.next() for _ in range(5)]
    noise.begin_episode()
    assert not np.allclose(first, [noise.next() for _ in range(5)])
    assert first[0].shape == (2, 3)


def test_training_actions_are_the_policy_s_with_the_noise_put_in_and_evaluation_has_none() -> None:
    agent = Cemrl(small_config(exploration={"policy_colour": 2.0}), toy_problem(), np.random.SeedSequence(0), "cpu")
    twin = np.random.default_rng()
    seen = np.ones((4, 3))
    agent.begin_training_trial(4, 1)
    twin.bit_generator.state = agent.numpy_generator.bit_generator.state
    agent.begin_episode()
    series = coloured_noise(np.full(4, 2.0), 2, 5, twin)
    assert agent._context is not None
    belief = agent._context.belief().point(False)
    with torch.no_grad():
        mean, log_deviation = agent.learner.policy(torch.cat([torch.ones(4, 3), belief], -1))
    for step in range(5):
        expected = torch.tanh(mean + log_deviation.exp() * torch.as_tensor(series[:, step], dtype=torch.float32))
        np.testing.assert_allclose(agent.act(seen, False), expected.numpy(), rtol=1e-5, atol=1e-6)
    agent.begin_trial(4)
    agent.begin_episode()
    assert agent.policy_noise() is None
