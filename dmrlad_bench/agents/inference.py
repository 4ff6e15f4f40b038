"""Task inference: encoder, decoder, the one ELBO, and its training with early stopping (CEMRL, arXiv 2006.14393)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.encoder import ContextEncoder
from dmrlad_bench.agents.graphs import GraphedUpdate, changing_tensors
from dmrlad_bench.agents.interface import Diverged, Metrics, Phases
from dmrlad_bench.agents.networks import MLP, copy_all
from dmrlad_bench.agents.optimisers import FusedAdam, schedule_learning_rate
from dmrlad_bench.agents.turns import turn
from dmrlad_bench.cards.agent_sections import Inference


@dataclass(frozen=True)
class Segments:
    """Stretches of trials: `lead` context steps, then targets, all normalised.

    Attributes:
        transitions: `(batch, lead + S - 1, transition_dim)` (o, a, r, o') of the stretch but its last step.
        valid: `(batch, lead + S - 1)` bool, steps that exist in the trial.
        observation, action: `(batch, S, dim)` of the targets.
        next_state: `(batch, S, reconstruction_dims)` what the decoder should say of the next observation.
        reward: `(batch, S)`.
        target: `(batch, S)` bool, targets that exist in the trial.
        position: `(batch, S)` int64, index of each target's belief among the beliefs along `transitions`.
        task: `(batch,)` int64 index of the task that the trial is stored under.
        task_class: `(batch,)` int64 base class of that task, or None.
    """

    transitions: Tensor
    valid: Tensor
    observation: Tensor
    action: Tensor
    next_state: Tensor
    reward: Tensor
    target: Tensor
    position: Tensor
    task: Tensor
    task_class: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """w_s + w_r = 1: the shares of state and reward errors in the ELBO, as numbers or as scalar tensors."""

    state: float | Tensor
    reward: float | Tensor

    @staticmethod
    def balanced(state_error: float, reward_error: float, reconstruction_dims: int) -> Weights:
        """In proportion to the errors, the reward's counted `reconstruction_dims` times."""
        if reconstruction_dims == 0:
            return Weights(0.0, 1.0)
        total = state_error + reconstruction_dims * reward_error
        share = state_error / total if total > 0 and math.isfinite(total) else 0.5
        return Weights(share, 1.0 - share)


class Decoder(nn.Module):
    """Two MLP heads on (o, a, z): the next observation's first entries, and the reward, whose head may be shown those entries, too."""

    def __init__(self, config: Inference, observation_dim: int, action_dim: int, dims: int, generator: torch.Generator) -> None:
        super().__init__()
        inputs = observation_dim + action_dim + config.latent_dim
        self.sees_next = config.reward_sees == "next_state"
        self.state = MLP(inputs, config.decoder_hidden, dims, generator) if dims else None
        self.reward = MLP(inputs + dims if self.sees_next else inputs, config.decoder_hidden, 1, generator)

    def forward(self, observation: Tensor, action: Tensor, latent: Tensor, next_state: Tensor) -> tuple[Tensor, Tensor]:
        """`(..., dims)` next state and `(...)` reward, both normalised; `next_state` `(..., dims)` is the true one."""
        inputs = torch.cat([observation, action, latent], -1)
        reward = self.reward(torch.cat([inputs, next_state], -1) if self.sees_next else inputs).squeeze(-1)
        state = self.state(inputs) if self.state is not None else reward.new_zeros((*reward.shape, 0))
        return state, reward


def negative_elbo(
    belief: Belief, prior: tuple[Tensor, Tensor], state_error: Tensor, reward_error: Tensor, weights: Weights, config: Inference
) -> Tensor:
    """Negative ELBO of every target (minimised; the batch mean is taken by the caller).

        L = sum_k q(y=k|c) [ w_s ||s_hat - s||^2 + w_r (r_hat - r)^2 + alpha KL(q(z|c,k) || p(z|k)) ] + beta KL(q(y|c) || uniform)

    Args:
        belief: q(y|c) `(..., K)` and q(z|c, y) `(..., K, L)`.
        prior: mean and standard deviation of p(z|y), each `(K, L)`.
        state_error, reward_error: squared errors for a latent drawn from each class, `(..., K)`.
        weights: w_s and w_r.
        config: alpha = `kl_weight`, beta = `class_kl_weight`.

    Returns:
        `(...)`.
    """
    prior_mean, prior_deviation = prior
    divergence = (
        torch.log(prior_deviation / belief.deviation)
        + (belief.deviation.square() + (belief.mean - prior_mean).square()) / (2 * prior_deviation.square())
        - 0.5
    ).sum(-1)
    error = weights.state * state_error + weights.reward * reward_error
    expected = (belief.classes * (error + config.kl_weight * divergence)).sum(-1)
    count = belief.classes.shape[-1]
    class_divergence = (torch.special.xlogy(belief.classes, belief.classes)).sum(-1) + math.log(count)
    return expected + config.class_kl_weight * class_divergence


class Kept:
    """A copy of tensors that are to come back later, kept in the same memory however often it is taken.

    Args:
        tensors: what is kept, as it is now; moments that an optimiser makes later come behind the others, and were zero before.
    """

    def __init__(self, tensors: Callable[[], list[Tensor]]) -> None:
        self._tensors, self._copies = tensors, []
        self.keep()

    def keep(self) -> None:
        """Copy the tensors."""
        tensors = self._tensors()
        self._copies += [torch.empty_like(tensor) for tensor in tensors[len(self._copies) :]]
        copy_all(self._copies, tensors)

    def restore(self) -> None:
        """Write into the tensors what was copied last."""
        tensors = self._tensors()
        copy_all(tensors[: len(self._copies)], self._copies)
        for later in tensors[len(self._copies) :]:
            later.zero_()


class TaskInference:
    """Encoder, prior and decoder with their optimiser."""

    def __init__(
        self, config: Inference, observation_dim: int, action_dim: int, reconstruction_dims: int, generator: torch.Generator
    ) -> None:
        self.config = config
        self.dims = reconstruction_dims
        self.transition_dim = 2 * observation_dim + action_dim + 1
        self.encoder = ContextEncoder(config, self.transition_dim, generator)
        self.decoder = Decoder(config, observation_dim, action_dim, reconstruction_dims, generator)
        self.parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimiser: torch.optim.Adam = FusedAdam(
            [parameter for parameter in self.parameters if parameter.requires_grad], config.learning_rate
        )
        share = 1.0 - config.reward_weight if reconstruction_dims else 0.0
        self._shares = torch.zeros(2, device=generator.device)
        self.weights = Weights(share, 1.0 - share)
        self.updates = 0
        self._graphed: GraphedUpdate[Segments] | None = None

    @property
    def weights(self) -> Weights:
        """w_s and w_r as they are now."""
        return self._weights

    @weights.setter
    def weights(self, weights: Weights) -> None:
        self._weights = weights
        self._shares.copy_(torch.tensor([weights.state, weights.reward]))

    def use_graph(self, generator: torch.Generator) -> GraphedUpdate[Segments]:
        """Let `update`, which is then always to be called with this generator and segments of one shape, go through a CUDA graph."""
        self._graphed = GraphedUpdate(lambda segments: {"loss": self._gradient_step(segments, generator)}, self._changing, generator)
        return self._graphed

    def _changing(self) -> list[Tensor]:
        return changing_tensors([self.encoder, self.decoder], [self.optimiser])

    def schedule(self, progress: float) -> None:
        """Set the learning rate for the share `progress` of the run that is done."""
        config = self.config
        schedule_learning_rate([self.optimiser], config.learning_rate, config.learning_rate_end, progress / config.learning_rate_span)

    @property
    def widest(self) -> int:
        """Entries of the largest activation that a transition needs in the encoder."""
        return max(*self.config.encoder_hidden, self.transition_dim)

    def reach(self, context: str) -> int:
        """How many of a trial's last transitions the context `window` or `trajectory` holds; 0 = all."""
        sees_more = context == "trajectory" and self.encoder.summable  # other designs only ever see windows of W
        return 0 if sees_more else self.config.window

    def beliefs(self, segments: Segments) -> Belief:
        """Belief of every target, `(batch, S, ...)`."""
        return self.encoder.at(self.encoder.rows(segments.transitions, segments.valid), segments.position)

    def loss(self, segments: Segments, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Mean negative ELBO over the targets, and the mean state and reward errors (expected over classes)."""
        belief = self.beliefs(segments)
        noise = torch.randn(belief.mean.shape, generator=generator, device=belief.mean.device)
        latent = belief.mean + belief.deviation * noise
        classes = latent.shape[-2]
        observation = segments.observation.unsqueeze(-2).expand(-1, -1, classes, -1)
        action = segments.action.unsqueeze(-2).expand(-1, -1, classes, -1)
        following = segments.next_state.unsqueeze(-2).expand(-1, -1, classes, -1)
        state, reward = self.decoder(observation, action, latent, following)
        state_error = (state - following).square().sum(-1)
        reward_error = (reward - segments.reward.unsqueeze(-1)).square()
        terms = negative_elbo(belief, self.encoder.prior(), state_error, reward_error, Weights(*self._shares.unbind()), self.config)
        if self.config.class_labels and segments.task_class is not None:
            labels = segments.task_class.unsqueeze(-1).expand(segments.target.shape)
            terms = terms + functional.nll_loss(
                belief.classes.clamp(min=1e-8).log().flatten(0, 1), labels.flatten(), reduction="none"
            ).view(terms.shape)
        present = segments.target.to(terms.dtype)
        count = present.sum().clamp(min=1.0)
        mean_state = ((belief.classes * state_error).sum(-1) * present).sum() / count
        mean_reward = ((belief.classes * reward_error).sum(-1) * present).sum() / count
        return (terms * present).sum() / count, mean_state.detach(), mean_reward.detach()

    def update(self, segments: Segments, generator: torch.Generator) -> Tensor:
        """One gradient step; returns the loss."""
        return self._gradient_step(segments, generator) if self._graphed is None else self._graphed(segments)["loss"]

    def _gradient_step(self, segments: Segments, generator: torch.Generator) -> Tensor:
        loss, _, _ = self.loss(segments, generator)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def fit(
        self,
        draw: Callable[[], Segments],
        validation: Segments,
        updates: int,
        generator: torch.Generator,
        phases: Phases | None = None,
    ) -> Metrics:
        """Train for up to `updates` steps with early stopping on a fixed validation set.

        Every `validation_interval` updates the weights w_s, w_r are re-balanced and the validation error is taken; after
        `patience` updates without improvement, or at the end, the best parameters *and* optimiser moments return. Those from
        before the first update count: where no update helps, beliefs stay as the policy knows them. `phases` are told how far it is.

        Raises:
            Diverged: a loss is not finite.
        """
        if updates == 0:
            return {}
        noise = generator.clone_state()  # every validation sees the same latent noise
        best, state_error, reward_error = self._validate(validation, noise)
        since, done = 0, 0
        kept = Kept(self._changing)
        total = torch.zeros((), device=generator.device)
        while done < updates and done - since < self.config.patience:
            with turn():
                for _ in range(min(self.config.validation_interval, updates - done)):
                    total += self.update(draw(), generator)
                    done += 1
            if phases is not None:
                phases.advance(done, updates)
            error, state_error, reward_error = self._validate(validation, noise)
            if not math.isfinite(error) or not math.isfinite(float(total)):
                raise Diverged(f"the reconstruction loss is {float(total)} at reconstruction update {self.updates + done}")
            if error < best:
                best, since = error, done
                kept.keep()
            self.weights = Weights.balanced(state_error, reward_error, self.dims)
        kept.restore()
        self.updates += done
        _, state_error, reward_error = self._validate(validation, noise)
        return {
            "reconstruction": float(total) / done,
            "reconstruction_updates": float(done),
            "validation_state_error": state_error,
            "validation_reward_error": reward_error,
            "reward_weight": float(self.weights.reward),
        }

    @torch.no_grad()
    def _validate(self, validation: Segments, noise: torch.Generator) -> tuple[float, float, float]:
        """Validation error that does not move when the weights are re-balanced (equal shares), and its two parts."""
        loss, state_error, reward_error = self.loss(validation, noise.clone_state())
        current = self.weights.state * state_error + self.weights.reward * reward_error
        share = 0.5 if self.dims else 0.0
        even = share * state_error / max(self.dims, 1) + (1.0 - share) * reward_error
        return float(loss - current + even), float(state_error), float(reward_error)

    def state_dict(self) -> dict[str, Any]:
        parts = {"encoder": self.encoder.state_dict(), "decoder": self.decoder.state_dict(), "optimiser": self.optimiser.state_dict()}
        numbers = {"state_weight": self.weights.state, "reward_weight": self.weights.reward, "updates": self.updates}
        return copy.deepcopy(parts) | numbers

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.decoder.load_state_dict(state["decoder"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.weights = Weights(float(state["state_weight"]), float(state["reward_weight"]))
        self.updates = int(state["updates"])
