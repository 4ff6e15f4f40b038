"""Exploration that makes sparse rewards learnable: coloured noise, in place of the policy or in its draws, and constant directions."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.cards.agent_sections import Exploration


def coloured_noise(exponents: np.ndarray, dims: int, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Gaussian noise with power spectrum 1/f^exponent (Timmer and Koenig 1995), of unit root mean square.

    Args:
        exponents: `(series,)`; 0 is white, 1 pink, 2 Brownian.
        dims: independent components of a series.
        steps: length.
        generator: source of randomness.

    Returns:
        `(series, steps, dims)` float64.
    """
    frequencies = np.fft.rfftfreq(2 * steps)  # of twice the length: half of it is kept, so series do not close on themselves
    frequencies[0] = frequencies[1]
    scale = frequencies[None, None, :] ** (-exponents[:, None, None] / 2)
    shape = (len(exponents), dims, len(frequencies))
    spectrum = (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)) * scale
    series = np.fft.irfft(spectrum, n=2 * steps, axis=-1)[..., :steps]
    series = series / np.sqrt(np.mean(series**2, axis=-1, keepdims=True) + 1e-12)
    return series.transpose(0, 2, 1)


def training_noise(
    config: Exploration, num_envs: int, iteration: int, action_dim: int, horizon: int, generator: np.random.Generator
) -> NoiseActions | None:
    """The noise of training trials that begin side by side in an iteration, counted from 1; None where none of them has any.

    Noise drives all trials of the initial iterations where `initial = "coloured"`, and `coloured_share` of the later ones.
    """
    initial = config.initial == "coloured" and iteration <= config.initial_iterations
    share = 1.0 if initial else config.coloured_share
    if share == 0:
        return None
    return NoiseActions(config, generator.random(num_envs) < share, action_dim, horizon, generator)


class NoiseActions:
    """Actions that replace the policy's in chosen trials: every episode has coloured noise of its own colour, or one direction.

    Args:
        config: colours and the share of constant directions.
        chosen: `(num_envs,)` bool, the trials that noise drives.
        action_dim: entries of an action.
        horizon: steps of an episode.
        generator: source of randomness.
    """

    def __init__(self, config: Exploration, chosen: np.ndarray, action_dim: int, horizon: int, generator: np.random.Generator) -> None:
        self.config, self.chosen, self.generator = config, chosen, generator
        self.shape = (len(chosen), action_dim, horizon)
        self.begin_episode()

    def begin_episode(self) -> None:
        """Draw the colours, directions and noise of the next episode."""
        num_envs, action_dim, horizon = self.shape
        colours = self.generator.uniform(self.config.colour_low, self.config.colour_high, num_envs)
        noise = coloured_noise(colours, action_dim, horizon, self.generator)
        direction = self.generator.standard_normal((num_envs, action_dim))
        direction /= np.abs(direction).max(-1, keepdims=True)
        constant = self.generator.random(num_envs) < self.config.constant_share
        noise = np.where(constant[:, None, None], direction[:, None, :], noise)
        self.actions = np.clip(noise, -1.0, 1.0).astype(np.float32)
        self.step = 0

    def replace(self, actions: np.ndarray) -> np.ndarray:
        """`actions` `(num_envs, action_dim)` with those of the chosen trials replaced by the next step of their noise."""
        noise = self.actions[:, self.step % self.actions.shape[1]]
        self.step += 1
        return np.where(self.chosen[:, None], noise, actions)


class PolicyNoise:
    """Noise of one colour to draw a policy's actions with, a series of its own for every episode (Eberhard et al., ICLR 2023).

    Args:
        colour: exponent of the power spectrum.
        shape: environments, entries of an action, steps of an episode.
        generator: source of randomness.
    """

    def __init__(self, colour: float, shape: tuple[int, int, int], generator: np.random.Generator) -> None:
        self.colour, self.shape, self.generator = colour, shape, generator
        self.begin_episode()

    def begin_episode(self) -> None:
        """Draw the next episode's series."""
        num_envs, action_dim, horizon = self.shape
        self.series = coloured_noise(np.full(num_envs, self.colour), action_dim, horizon, self.generator)
        self.step = 0

    def next(self) -> np.ndarray:
        """The next step's noise, `(num_envs, action_dim)`."""
        noise = self.series[:, self.step % self.shape[2]]
        self.step += 1
        return noise
