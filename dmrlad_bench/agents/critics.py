"""Twin critics, scalar and quantile (IQN, arXiv 1806.06923), the quantile Huber loss, and risk measures (DSAC, arXiv 2004.14547)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.polynomial import legendre
from torch import Tensor, nn
from torch.nn import functional

from dmrlad_bench.agents.networks import MLP, Linear, rows_of_a_pass
from dmrlad_bench.cards.agent_sections import ActorCritic


@dataclass(frozen=True)
class Fractions:
    """A partition of [0, 1] for every row of a batch.

    Attributes:
        weights: `(batch, N)` p_i, positive, sum 1.
        midpoints: `(batch, N)` tau_hat_i = (tau_{i-1} + tau_i) / 2, or the nodes of another rule.
    """

    weights: Tensor
    midpoints: Tensor

    @staticmethod
    def from_weights(weights: Tensor) -> Fractions:
        """Midpoints of the cells of widths `weights` `(batch, N)`."""
        upper = weights.cumsum(-1)
        return Fractions(weights, upper - 0.5 * weights)

    @staticmethod
    def even(count: int, device: torch.device) -> Fractions:
        """`count` cells of equal width, one row for all: the midpoint rule."""
        return Fractions.from_weights(torch.full((1, count), 1.0 / count, device=device))

    @staticmethod
    def gauss(count: int, device: torch.device) -> Fractions:
        """The Gauss-Legendre rule of `count` fractions on [0, 1], one row for all: exact for polynomials of degree 2 `count` - 1."""
        node, weight = (torch.as_tensor(part, dtype=torch.float32, device=device).unsqueeze(0) for part in legendre.leggauss(count))
        return Fractions(weight / 2, (node + 1) / 2)


def draw_fractions(batch: int, config: ActorCritic, generator: torch.Generator) -> Fractions:
    """Fractions of kind `iqn` (u_i ~ U(0,1) + 0.1, normalised) or `fixed` (p_i = 1/N).

    One row for every member of the batch, or a single row that all share (`fixed`, or `shared_fractions`).
    """
    count = config.fraction_count
    if config.fractions == "fixed":
        return Fractions.even(count, generator.device)
    rows = 1 if config.shared_fractions else batch
    draws = torch.rand((rows, count), generator=generator, device=generator.device) + 0.1
    return Fractions.from_weights(draws / draws.sum(-1, keepdim=True))


class FractionProposal(nn.Module):
    """Fractions proposed by a network of (s, a) (FQF, arXiv 1911.02140)."""

    def __init__(self, state_dim: int, action_dim: int, config: ActorCritic, generator: torch.Generator) -> None:
        super().__init__()
        self.network = MLP(state_dim + action_dim, config.hidden[-1:], config.fraction_count, generator)

    def forward(self, state: Tensor, action: Tensor) -> Fractions:
        return Fractions.from_weights(torch.softmax(self.network(torch.cat([state, action], -1)), -1))


class QuantileCritic(nn.Module):
    """A return distribution Z(s, a; tau).

    A base MLP with LayerNorm (`critic_norm`) on (s, a) is multiplied by an embedding of tau (cosines, linear, LayerNorm, sigmoid);
    a merged layer with LayerNorm follows, then one output for every tau.

    Without gradients, a large batch is answered in passes small enough for their activations to stay in the cache.
    """

    frequencies: Tensor

    def __init__(self, state_dim: int, action_dim: int, config: ActorCritic, generator: torch.Generator) -> None:
        super().__init__()
        *base, merged = config.hidden
        inputs = state_dim + action_dim
        width = base[-1] if base else inputs
        normed = config.critic_norm == "layer"
        self.base = MLP(inputs, base, None, generator, layer_norm=normed)
        self.embedding = Linear(config.cosines, width, generator)
        self.embedding_norm = nn.LayerNorm(width, device=generator.device) if normed else nn.Identity()
        self.merged = MLP(width, (merged,), 1, generator, layer_norm=normed)
        frequencies = math.pi * torch.arange(1, config.cosines + 1, device=generator.device, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.widest = max(*config.hidden, config.cosines, inputs)

    def forward(self, state: Tensor, action: Tensor, tau: Tensor) -> Tensor:
        """`(batch, state_dim)`, `(batch, action_dim)`, `(batch or 1, N)` -> `(batch, N)`."""
        rows = rows_of_a_pass(self.widest * tau.shape[-1], state.device)
        if torch.is_grad_enabled() or len(state) <= rows:
            return self._answer(state, action, tau)
        fractions = tau.split(rows) if len(tau) > 1 else [tau] * math.ceil(len(state) / rows)
        return torch.cat([self._answer(*part) for part in zip(state.split(rows), action.split(rows), fractions, strict=True)])

    def _answer(self, state: Tensor, action: Tensor, tau: Tensor) -> Tensor:
        features = self.base(torch.cat([state, action], -1))
        cosines = torch.cos(tau.unsqueeze(-1) * self.frequencies)
        embedding = torch.sigmoid(self.embedding_norm(self.embedding(cosines)))
        return self.merged(features.unsqueeze(1) * embedding).squeeze(-1)


class ScalarCritic(nn.Module):
    """An action value Q(s, a): an MLP, with LayerNorm as the quantile critic has it."""

    def __init__(self, state_dim: int, action_dim: int, config: ActorCritic, generator: torch.Generator) -> None:
        super().__init__()
        self.trunk = MLP(state_dim + action_dim, config.hidden, 1, generator, layer_norm=config.critic_norm == "layer")

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """`(batch, state_dim)`, `(batch, action_dim)` -> `(batch,)`."""
        return self.trunk(torch.cat([state, action], -1)).squeeze(-1)


class Twins(nn.ModuleList):
    """Two critics of one kind. One after the other, not one batched product: on a CPU that is a third faster (13 against 20 ms)."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Both answers, `(2, batch, ...)`."""
        return torch.stack([critic(*inputs) for critic in self])


def twin_critics(state_dim: int, action_dim: int, config: ActorCritic, generator: torch.Generator) -> Twins:
    """The pair of critics that `config.critic` names."""
    kind = QuantileCritic if config.critic == "quantile" else ScalarCritic
    return Twins(kind(state_dim, action_dim, config, generator) for _ in range(2))


def quantile_huber_loss(prediction: Tensor, target: Tensor, fractions: Tensor, target_weights: Tensor) -> Tensor:
    """Quantile Huber loss, `mean_batch mean_i sum_j p'_j |tau_hat_i - 1{delta_ij < 0}| huber_1(delta_ij)`.

    delta_ij = target_j - prediction_i. The mean over i is over prediction fractions, the sum over j is weighted by the
    target's fractions (IQN, arXiv 1806.06923, equation 3; weights as in DSAC, arXiv 2004.14547).

    Args:
        prediction: `(..., batch, N)` Z(s, a; tau_hat_i).
        target: `(batch, N)` target_j.
        fractions: `(batch or 1, N)` tau_hat_i of the predictions.
        target_weights: `(batch or 1, N)` p'_j.

    Returns:
        Scalar; leading dimensions of `prediction` (twins) are summed.
    """
    difference = target.unsqueeze(-2) - prediction.unsqueeze(-1)
    magnitude = difference.abs()
    huber = torch.where(magnitude < 1.0, 0.5 * difference.square(), magnitude - 0.5)
    asymmetry = (fractions.unsqueeze(-1) - (difference < 0).to(difference.dtype)).abs()
    loss = (asymmetry * huber * target_weights.unsqueeze(-2)).sum(-1).mean(-1).mean(-1)
    return loss.sum()


def distortion_weights(tau: Tensor, measure: str, parameter: float) -> Tensor:
    """Derivative of a distortion function at `tau`, of the shape of `tau`.

    Args:
        tau: fractions in (0, 1).
        measure: `neutral` (1 everywhere), `cvar` (1/eta below eta, else 0), `wang`
            (phi(Phi^-1(tau) + eta) / phi(Phi^-1(tau))) or `cpw` (derivative of tau^eta / (tau^eta + (1-tau)^eta)^(1/eta)).
        parameter: eta; in (0, 1] for `cvar`, positive for `cpw`.

    Raises:
        ValueError: an unknown measure or a parameter outside its range.
    """
    if measure == "neutral":
        return torch.ones_like(tau)
    if measure == "cvar":
        if not 0 < parameter <= 1:
            raise ValueError(f"risk_parameter of 'cvar' must lie in (0, 1], got {parameter}")
        return (tau < parameter).to(tau.dtype) / parameter
    if measure == "wang":
        normal = torch.special.ndtri(tau)
        return torch.exp(0.5 * normal.square() - 0.5 * (normal + parameter).square())
    if measure == "cpw":
        if parameter <= 0:
            raise ValueError(f"risk_parameter of 'cpw' must be positive, got {parameter}")
        low, high = tau.pow(parameter), (1 - tau).pow(parameter)
        total = low + high
        slope = low / tau - high / (1 - tau)
        return (parameter * low / tau - low * slope / total) * total.pow(-1 / parameter)
    raise ValueError(f"no distortion {measure!r}; accepted: neutral, cvar, wang, cpw")


def risk_value(distribution: Tensor, fractions: Fractions, measure: str, parameter: float) -> Tensor:
    """One number for a return distribution `(batch, N)` -> `(batch,)`.

    Distortions weigh the quantiles by p_i times the distortion's derivative, normalised over the drawn fractions;
    `mean_std` is mean - eta * standard deviation. (`var` is a single quantile: `SoftActorCritic.value` asks the critic for it.)
    """
    if measure == "mean_std":
        mean = (fractions.weights * distribution).sum(-1)
        variance = (fractions.weights * (distribution - mean.unsqueeze(-1)).square()).sum(-1)
        return mean - parameter * (variance + 1e-12).sqrt()
    if measure == "neutral":
        return (fractions.weights * distribution).sum(-1)
    weights = fractions.weights * distortion_weights(fractions.midpoints, measure, parameter)
    total = weights.sum(-1, keepdim=True)
    lowest = functional.one_hot(torch.zeros(weights.shape[:-1], dtype=torch.int64, device=weights.device), weights.shape[-1])
    weights = torch.where(total > 0, weights / total.clamp(min=1e-12), lowest.to(weights.dtype))
    return (weights * distribution).sum(-1)


def scheduled_risk(config: ActorCritic, update: int) -> float:
    """The risk parameter at a policy update: linear from `risk_parameter` to `risk_parameter_end`."""
    if config.risk_parameter_end is None:
        return config.risk_parameter
    share = min(update / config.risk_updates, 1.0)
    return config.risk_parameter + share * (config.risk_parameter_end - config.risk_parameter)
