"""Slow float64 references, written from the formulas: networks layer by layer, beliefs of one window at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import nn

from dmrlad_bench.agents.encoder import ContextEncoder
from dmrlad_bench.agents.networks import Linear


class WindowBelief(NamedTuple):
    """q(y|c) `(K,)` and q(z|c, y), each `(K, L)`."""

    classes: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def array(tensor: Any) -> np.ndarray:
    """A tensor as a float64 array."""
    return tensor.detach().numpy().astype(np.float64)


def affine(layer: Any, inputs: np.ndarray) -> np.ndarray:
    return inputs @ array(layer.weight).T + array(layer.bias)


def network(layers: Any, inputs: np.ndarray) -> np.ndarray:
    """An MLP of affine maps, LayerNorms and ReLUs in NumPy."""
    for layer in layers:
        if isinstance(layer, Linear):
            inputs = affine(layer, inputs)
        elif isinstance(layer, nn.LayerNorm):
            centred = inputs - inputs.mean(-1, keepdims=True)
            spread = np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps)
            inputs = centred / spread * array(layer.weight) + array(layer.bias)
        else:
            assert isinstance(layer, nn.ReLU)
            inputs = np.maximum(inputs, 0.0)
    return inputs


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def softplus(values: np.ndarray) -> np.ndarray:
    return np.logaddexp(values, 0.0)


def multiply(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation of the product of two Gaussian densities."""
    (one, one_deviation), (other, other_deviation) = first, second
    spread = one_deviation**2 + other_deviation**2
    return (one * other_deviation**2 + other * one_deviation**2) / spread, np.sqrt(one_deviation**2 * other_deviation**2 / spread)


def factors(encoder: ContextEncoder, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class logits `(K,)`, factor means and deviations `(K, L)` of one encoder input."""
    classes, latent = encoder.config.classes, encoder.config.latent_dim
    features = network(encoder.trunk, inputs)
    heads = affine(encoder.gaussian_head, features).reshape(2, classes, latent)
    return affine(encoder.class_head, features), heads[0], softplus(heads[1]) + 1e-3


def window_belief(encoder: ContextEncoder, transitions: np.ndarray) -> WindowBelief:
    """The belief of one window of transitions `(n, transition_dim)`, n at most W where there is a W; Gaussians multiplied two by two."""
    config = encoder.config
    classes, latent, count = config.classes, config.latent_dim, len(transitions)
    transitions = np.asarray(transitions, dtype=np.float64)
    mean = array(encoder.prior.mean).copy()
    deviation = softplus(array(encoder.prior.raw_deviation))
    if count == 0:
        return WindowBelief(np.full(classes, 1.0 / classes), mean, deviation)
    if config.encoder == "trajectory":
        flat = np.zeros((config.window, transitions.shape[1] + 1))
        flat[config.window - count :, :-1] = transitions
        flat[config.window - count :, -1] = 1.0
        entries = [factors(encoder, flat.reshape(-1))]
    else:
        entries = [factors(encoder, transition) for transition in transitions]
    logits = np.stack([entry[0] for entry in entries])
    for entry_logits, factor_mean, factor_deviation in entries:
        if config.encoder == "per_transition_class":  # the factor expected under the transition's own classes, for every class
            own = softmax(entry_logits)[:, None]
            precision = (own / factor_deviation**2).sum(0)
            factor_mean = np.tile((own * factor_mean / factor_deviation**2).sum(0) / precision, (classes, 1))
            factor_deviation = np.tile(1.0 / np.sqrt(precision), (classes, 1))
        for k in range(classes):
            for entry in range(latent):
                product = multiply((mean[k, entry], deviation[k, entry]), (factor_mean[k, entry], factor_deviation[k, entry]))
                mean[k, entry], deviation[k, entry] = product
    return WindowBelief(_merged(encoder, logits), mean, deviation)


def _merged(encoder: ContextEncoder, logits: np.ndarray) -> np.ndarray:
    config = encoder.config
    if config.encoder == "trajectory" or config.merge == "mean":
        return softmax(logits).mean(0)
    if config.merge == "softmax_of_sum":
        return softmax(softmax(logits).sum(0))
    if config.merge == "softmax_of_product":
        return softmax(softmax(logits).prod(0))
    window = np.zeros((config.window, config.classes))
    window[config.window - len(logits) :] = logits
    return softmax(network(encoder.merger, window.reshape(-1)))
