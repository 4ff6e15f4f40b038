"""Networks that every learner is made of: linear layers with explicit generators, MLPs, and the tanh-Gaussian policy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

LOG_DEVIATION_RANGE = (-20.0, 2.0)
PASS_BYTES = {"cpu": 2**20, "cuda": 2**28}  # largest activation of a pass without gradients: what a core's cache holds
ALIGNMENT = 16  # passes of a multiple of so many rows: products with few columns then round alike however rows are split


def rows_of_a_pass(width: int, device: torch.device) -> int:
    """How many rows, whose widest layer has `width` numbers each, one pass without gradients takes: `PASS_BYTES` of float32."""
    return max(ALIGNMENT, PASS_BYTES[device.type] // (4 * width) // ALIGNMENT * ALIGNMENT)


class Linear(nn.Module):
    """Affine map; weights and biases start uniform in +-1/sqrt(inputs), drawn from `generator`."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(max(inputs, 1))
        self.weight = nn.Parameter(_uniform((outputs, inputs), bound, generator))
        self.bias = nn.Parameter(_uniform((outputs,), bound, generator))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight, self.bias)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * bound


class MLP(nn.Sequential):
    """Multi-layer perceptron with ReLU; `outputs = None` ends behind the last hidden activation.

    Without gradients, many rows go through in passes small enough for their activations to stay in the cache. No row's result
    depends on the others, so passes change nothing but the time.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], outputs: int | None, generator: torch.Generator, *, layer_norm: bool = False
    ) -> None:
        layers: list[nn.Module] = []
        width = inputs
        for size in hidden:
            layers.append(Linear(width, size, generator))
            if layer_norm:
                layers.append(nn.LayerNorm(size, device=generator.device))
            layers.append(nn.ReLU(inplace=True))
            width = size
        if outputs is not None:
            layers.append(Linear(width, outputs, generator))
        super().__init__(*layers)
        self.widest = max((inputs, *hidden))

    def forward(self, inputs: Tensor) -> Tensor:
        """`(..., inputs)` -> `(..., outputs)`."""
        if torch.is_grad_enabled():
            return super().forward(inputs)
        rows = rows_of_a_pass(self.widest, inputs.device)
        if inputs.shape[:-1].numel() <= rows:
            return super().forward(inputs)
        passes = inputs.reshape(-1, inputs.shape[-1]).split(rows)
        return torch.cat([super(MLP, self).forward(part) for part in passes]).view(*inputs.shape[:-1], -1)


class TanhGaussianPolicy(nn.Module):
    """pi(a|s): a Gaussian squashed by tanh into [-1, 1] (SAC, arXiv 1812.05905, appendix C)."""

    def __init__(self, state_dim: int, action_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP(state_dim, hidden, 2 * action_dim, generator)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, each `(..., action_dim)`."""
        mean, log_deviation = self.trunk(state).chunk(2, dim=-1)
        return mean, log_deviation.clamp(*LOG_DEVIATION_RANGE)

    def sample(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Reparameterised actions `(..., action_dim)` and their log densities `(...)`."""
        mean, log_deviation = self(state)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        raw = mean + log_deviation.exp() * noise
        gaussian = -0.5 * noise.square() - log_deviation - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x)), stable for large |x|
        squashing = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (gaussian - squashing).sum(-1)

    def draw(self, state: Tensor, generator: torch.Generator, noise: Tensor | None = None) -> Tensor:
        """The actions that `sample` gives, without their densities; `noise` `(..., action_dim)` in place of white noise, if given."""
        mean, log_deviation = self(state)
        if noise is None:
            noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return torch.tanh(mean + log_deviation.exp() * noise)

    def mode(self, state: Tensor) -> Tensor:
        """Deterministic actions `(..., action_dim)`: the squashed mean."""
        return torch.tanh(self(state)[0])


@torch.no_grad()
def polyak_average(target: nn.Module, online: nn.Module, rate: float) -> None:
    """target <- (1 - rate) target + rate online, for every parameter."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)  # pyright: ignore[reportPrivateImportUsage]


@torch.no_grad()
def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """target <- source, for every pair; on a GPU in one launch where all are of one type."""
    torch._foreach_copy_(list(targets), list(sources))  # pyright: ignore[reportPrivateImportUsage]
