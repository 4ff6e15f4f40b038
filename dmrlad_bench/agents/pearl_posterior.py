"""PEARL's posterior q(z|c), a product of one Gaussian factor for each transition, and its divergence from the prior (arXiv 1903.08254)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.networks import MLP
from dmrlad_bench.cards.agent_sections import Pearl

SMALLEST_DEVIATION = 1e-3
SMALLEST_PRECISION = 1e-12


class PosteriorEncoder(nn.Module):
    """q(z|c) is proportional to the product over the context of N(z; mu(c_i), sigma(c_i)^2) (section 4.1 of the paper).

    The prior N(0, I) is not one of the factors; it is the belief of an empty context. A belief depends only on the *sum* of its
    context's rows `[precisions (L), precision-weighted means (L), 1]`, so the order of transitions means nothing, and a context
    grows by adding rows to the sum.
    """

    def __init__(self, config: Pearl, observation_dim: int, action_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.latent_dim = config.latent_dim
        self.inputs = observation_dim + action_dim + 1 + (observation_dim if config.next_observation else 0)
        self.network = MLP(self.inputs, config.encoder_hidden, 2 * config.latent_dim, generator)

    def rows(self, transitions: Tensor, valid: Tensor) -> Tensor:
        """Encode every transition once.

        Args:
            transitions: `(..., steps, transition_dim)` normalised (o, a, r, o'); o' is not looked at without `next_observation`.
            valid: `(..., steps)` bool or float; transitions that are not valid contribute nothing.

        Returns:
            `(..., steps, 2 L + 1)`; the last feature is `valid`.
        """
        mean, raw = self.network(transitions[..., : self.inputs]).chunk(2, -1)
        precision = (functional.softplus(raw) + SMALLEST_DEVIATION).square().reciprocal()
        present = valid.to(transitions.dtype).unsqueeze(-1)
        return torch.cat([precision, precision * mean, torch.ones_like(present)], -1) * present

    def of_context(self, rows: Tensor) -> Belief:
        """The belief after all rows, `(..., steps, 2 L + 1)` -> `(..., 1, L)`: one class."""
        return self.of_sums(rows.sum(-2))

    def of_sums(self, sums: Tensor) -> Belief:
        """Beliefs from summed rows `(..., 2 L + 1)`: 1/sigma^2 = sum_i 1/sigma_i^2, mu = sigma^2 sum_i mu_i/sigma_i^2."""
        precision, weighted_mean, count = sums.split([self.latent_dim, self.latent_dim, 1], -1)
        known = count > 0.5
        precision = torch.where(known, precision.clamp(min=SMALLEST_PRECISION), torch.ones_like(precision))
        mean, deviation = weighted_mean / precision, precision.rsqrt()
        return Belief(torch.ones_like(count), mean.unsqueeze(-2), deviation.unsqueeze(-2))


def divergence_from_prior(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2) || N(0, I)) in nats, `(..., L)` -> `(...)`."""
    return (0.5 * (mean.square() + deviation.square() - 1.0) - deviation.log()).sum(-1)
