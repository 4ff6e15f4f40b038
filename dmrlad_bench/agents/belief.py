"""Beliefs about the task: products of Gaussian factors over a context window, computed from sums of per-transition rows.

Every transition contributes one row `[class statistic (K), precisions (K L), precision-weighted means (K L), 1]`. A window's
belief depends only on the sum of its rows, so the belief of every step of a trial is a difference of prefix sums.
sigma is a standard deviation everywhere; precision is 1/sigma^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MERGES = ("mean", "softmax_of_sum", "softmax_of_product")


@dataclass(frozen=True)
class Belief:
    """q(y|c) and q(z|c, y) for every class.

    Attributes:
        classes: `(..., K)` probabilities.
        mean, deviation: `(..., K, L)`.
    """

    classes: Tensor
    mean: Tensor
    deviation: Tensor

    def point(self, with_deviation: bool = False) -> Tensor:
        """Mean of the most likely class, `(..., L)`; followed by its standard deviation where asked, `(..., 2 L)`."""
        if self.classes.shape[-1] == 1:
            return torch.cat([self.mean, self.deviation], -1).squeeze(-2) if with_deviation else self.mean.squeeze(-2)
        chosen = self.classes.argmax(-1)
        mean = _take_class(self.mean, chosen)
        return torch.cat([mean, _take_class(self.deviation, chosen)], -1) if with_deviation else mean

    def sample(self, generator: torch.Generator, with_deviation: bool = False) -> Tensor:
        """A draw of class and latent, `(..., L)`; acted on as if certain: where asked, a deviation of zero follows, `(..., 2 L)`."""
        flat = self.classes.reshape(-1, self.classes.shape[-1])
        chosen = torch.multinomial(flat, 1, generator=generator).view(self.classes.shape[:-1])
        mean = _take_class(self.mean, chosen)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        latent = mean + _take_class(self.deviation, chosen) * noise
        return torch.cat([latent, torch.zeros_like(latent)], -1) if with_deviation else latent


def _take_class(values: Tensor, chosen: Tensor) -> Tensor:
    index = chosen[..., None, None].expand(*chosen.shape, 1, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


def window_sums(rows: Tensor, window: int) -> Tensor:
    """Sums of `rows` over the window *before* every step, by prefix sums in float64.

    Args:
        rows: `(..., steps, features)`; masked entries are zero.
        window: W, or 0 for everything before the step.

    Returns:
        `(..., steps + 1, features)`; entry t sums rows t-W .. t-1.
    """
    columns = rows.double().transpose(-1, -2).contiguous()  # a GPU adds up along memory in parallel, and across it step by step
    prefix = functional.pad(columns.cumsum(-1).transpose(-1, -2), (0, 0, 1, 0))
    if window == 0 or window >= rows.shape[-2]:
        return prefix.to(rows.dtype)
    sums = prefix.clone()
    sums[..., window:, :] = prefix[..., window:, :] - prefix[..., :-window, :]
    return sums.to(rows.dtype)


def gaussian_product(
    precision_sum: Tensor, weighted_mean_sum: Tensor, prior_mean: Tensor, prior_deviation: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of prior x product of factors.

    1/sigma^2 = 1/sigma_prior^2 + sum_i 1/sigma_i^2;  mu = sigma^2 (mu_prior/sigma_prior^2 + sum_i mu_i/sigma_i^2).
    All arguments broadcast, `(..., K, L)`.
    """
    prior_precision = prior_deviation.square().reciprocal()
    variance = (prior_precision + precision_sum).reciprocal()
    return variance * (prior_mean * prior_precision + weighted_mean_sum), variance.sqrt()


def class_statistic(logits: Tensor, merge: str) -> Tensor:
    """What a transition adds to the class sum of its window, for the merges that are functions of a sum."""
    return torch.log_softmax(logits, -1) if merge == "softmax_of_product" else torch.softmax(logits, -1)


def merged_classes(statistic_sum: Tensor, count: Tensor, merge: str) -> Tensor:
    """q(y|c) `(..., K)` from the summed statistics; uniform for an empty window (`count` `(..., 1)` = 0).

    With p_i the class probabilities of transition i: `mean` is mean_i p_i, `softmax_of_sum` softmax(sum_i p_i),
    `softmax_of_product` softmax(prod_i p_i).
    """
    if statistic_sum.shape[-1] == 1 and not statistic_sum.requires_grad:
        return torch.ones_like(statistic_sum)
    present = count > 0.5
    if merge == "mean":
        uniform = torch.full_like(statistic_sum, 1.0 / statistic_sum.shape[-1])
        mean = (statistic_sum / count.clamp(min=1.0)).clamp(min=0.0)  # prefix sums round: a hair below zero is zero
        return torch.where(present, mean / mean.sum(-1, keepdim=True).clamp(min=1e-12), uniform)
    combined = statistic_sum.clamp(max=0.0).exp() if merge == "softmax_of_product" else statistic_sum
    return torch.softmax(torch.where(present, combined, torch.zeros_like(combined)), -1)
