"""The context encoder q(y|c), q(z|c, y) in its three designs, and the prior p(z|y) (CEMRL, arXiv 2006.14393)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmrlad_bench.agents.belief import MERGES, Belief, class_statistic, gaussian_product, merged_classes, window_sums
from dmrlad_bench.agents.networks import MLP, Linear, rows_of_a_pass
from dmrlad_bench.cards.agent_sections import Inference

SMALLEST_DEVIATION = 1e-3
MERGE_WIDTH = 32


class Prior(nn.Module):
    """p(z|y): N(k, prior_deviation^2) in every latent dimension for class k, or a linear layer on one-hot y."""

    def __init__(self, config: Inference, generator: torch.Generator) -> None:
        super().__init__()
        shape = (config.classes, config.latent_dim)
        mean = torch.arange(config.classes, device=generator.device, dtype=torch.float32).unsqueeze(-1).expand(shape).clone()
        deviation = torch.full(shape, config.prior_deviation, device=generator.device)
        learned = config.prior == "learned"
        self.mean = nn.Parameter(mean, requires_grad=learned)
        self.raw_deviation = nn.Parameter(torch.log(torch.expm1(deviation)), requires_grad=learned)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each `(K, L)`."""
        return self.mean, functional.softplus(self.raw_deviation)


class ContextEncoder(nn.Module):
    """Beliefs from context windows. Modes:

    * `shared_class`: one class for the window; class k's belief multiplies the class-k factors of all its transitions.
    * `per_transition_class`: every transition contributes the factor expected under its own class probabilities; the
      classes of the window share those factors and differ by their priors.
    * `trajectory`: the whole window, flattened and masked, enters one MLP that gives one factor for each class.
    """

    def __init__(self, config: Inference, transition_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        classes, latent = config.classes, config.latent_dim
        self.prior = Prior(config, generator)
        self.flat = config.encoder == "trajectory"
        inputs = config.window * (transition_dim + 1) if self.flat else transition_dim
        width = config.encoder_hidden[-1]
        self.trunk = MLP(inputs, config.encoder_hidden, None, generator)
        self.class_head = Linear(width, classes, generator)
        self.gaussian_head = Linear(width, 2 * classes * latent, generator)
        self.summable = not self.flat and config.merge in MERGES
        self.merger: nn.Module | None = None
        if not self.flat and not self.summable:
            hidden = (MERGE_WIDTH,) if config.merge == "mlp" else ()
            self.merger = MLP(config.window * classes, hidden, classes, generator)

    def rows(self, transitions: Tensor, valid: Tensor) -> Tensor:
        """Encode every transition once.

        Args:
            transitions: `(..., steps, transition_dim)` normalised (o, a, r, o').
            valid: `(..., steps)` bool or float; entries that are not valid contribute nothing.

        Returns:
            `(..., steps, features)`; the last feature is `valid`.
        """
        rows, valid = rows_of_a_pass(self.trunk.widest, transitions.device), valid.expand(transitions.shape[:-1])
        if torch.is_grad_enabled() or valid.numel() <= rows:
            return self._rows(transitions, valid)
        parts = zip(transitions.reshape(-1, transitions.shape[-1]).split(rows), valid.reshape(-1).split(rows), strict=True)
        return torch.cat([self._rows(part, exists) for part, exists in parts]).view(*valid.shape, -1)

    def _rows(self, transitions: Tensor, valid: Tensor) -> Tensor:
        present = valid.to(transitions.dtype).unsqueeze(-1)
        if self.flat:  # windows are encoded whole
            return torch.cat([transitions, torch.ones_like(present)], -1) * present
        logits, mean, deviation = self._heads(self.trunk(transitions))
        precision = deviation.square().reciprocal()
        weighted_mean = mean * precision
        if self.config.encoder == "per_transition_class":
            own = torch.softmax(logits, -1).unsqueeze(-1)
            precision = (own * precision).sum(-2, keepdim=True).expand_as(precision)
            weighted_mean = (own * weighted_mean).sum(-2, keepdim=True).expand_as(weighted_mean)
        statistic = class_statistic(logits, self.config.merge) if self.summable else logits
        return torch.cat([statistic, precision.flatten(-2), weighted_mean.flatten(-2), torch.ones_like(present)], -1) * present

    def along(self, rows: Tensor) -> Belief:
        """Beliefs before every step: rows `(..., steps, features)` -> entries `(..., steps + 1, ...)`."""
        if self.summable:
            return self.of_sums(window_sums(rows, self.config.window))
        window = self.config.window
        padded = functional.pad(rows, (0, 0, window, 0))
        return self.of_windows(padded.unfold(-2, window, 1).transpose(-1, -2))

    def at(self, rows: Tensor, position: Tensor) -> Belief:
        """Those of `along(rows)` at `position` `(batch, S)` int64, `(batch, S, ...)`."""
        if self.summable:
            sums = window_sums(rows, self.config.window)
            return self.of_sums(sums.gather(-2, position.unsqueeze(-1).expand(*position.shape, sums.shape[-1])))
        along, batch = self.along(rows), torch.arange(len(position), device=position.device).unsqueeze(-1)
        return Belief(*(part[batch, position] for part in (along.classes, along.mean, along.deviation)))

    def of_context(self, rows: Tensor) -> Belief:
        """The belief after all `rows` `(..., steps, features)`; where they do not simply add up, steps must be W."""
        return self.of_sums(rows.double().sum(-2).float()) if self.summable else self.of_windows(rows)

    def of_windows(self, windows: Tensor) -> Belief:
        """Beliefs of windows of rows, `(..., W, features)`, oldest first; missing entries are zero rows."""
        if self.flat:
            logits, mean, deviation = self._heads(self.trunk(windows.flatten(-2)))
            present = (windows[..., -1].sum(-1) > 0.5).to(logits.dtype)[..., None, None]
            precision = deviation.square().reciprocal() * present
            classes = merged_classes(torch.softmax(logits, -1), present.squeeze(-1), "mean")
            prior_mean, prior_deviation = self.prior()
            return Belief(classes, *gaussian_product(precision, mean * precision, prior_mean, prior_deviation))
        belief = self.of_sums(windows.sum(-2))
        if self.merger is None:
            return belief
        logits = self.merger(windows[..., : self.config.classes].flatten(-2))
        present = windows[..., -1].sum(-1, keepdim=True)
        return Belief(merged_classes(logits, present, "softmax_of_sum"), belief.mean, belief.deviation)

    def of_sums(self, sums: Tensor) -> Belief:
        """Beliefs from summed rows `(..., features)`."""
        classes, latent = self.config.classes, self.config.latent_dim
        statistic, precision, weighted_mean, count = sums.split([classes, classes * latent, classes * latent, 1], -1)
        shape = (*sums.shape[:-1], classes, latent)
        merge = self.config.merge if self.summable else "softmax_of_sum"
        prior_mean, prior_deviation = self.prior()
        product = gaussian_product(precision.reshape(shape).clamp(min=0.0), weighted_mean.reshape(shape), prior_mean, prior_deviation)
        return Belief(merged_classes(statistic, count, merge), *product)

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shape = (*features.shape[:-1], self.config.classes, self.config.latent_dim)
        mean, raw = self.gaussian_head(features).chunk(2, -1)
        return self.class_head(features), mean.reshape(shape), functional.softplus(raw).reshape(shape) + SMALLEST_DEVIATION


class OnlineContext:
    """The context of `num_envs` trials as they are lived: every new transition is encoded once, beliefs cost O(1) a step."""

    def __init__(self, encoder: ContextEncoder, transition_dim: int, num_envs: int) -> None:
        self.encoder = encoder
        device = encoder.class_head.weight.device
        valid = torch.zeros((num_envs, 1), device=device)
        rows = encoder.rows(torch.zeros((num_envs, 1, transition_dim), device=device), valid)
        self.rows = torch.zeros((num_envs, max(encoder.config.window, 1), rows.shape[-1]), device=device)
        self.growing = encoder.config.window == 0

    @torch.no_grad()
    def add(self, transitions: Tensor, valid: Tensor) -> None:
        """Append one transition of every trial, `(num_envs, transition_dim)`, where `valid` `(num_envs,)`."""
        known = torch.where(valid.unsqueeze(-1), transitions, torch.zeros_like(transitions))
        new = self.encoder.rows(known.unsqueeze(1), valid.unsqueeze(1))
        if self.growing:
            self.rows = self.rows + new
            return
        moved = torch.cat([self.rows[:, 1:], new], 1)
        self.rows = torch.where(valid[:, None, None], moved, self.rows)

    @torch.no_grad()
    def belief(self) -> Belief:
        """Beliefs before the next step, `(num_envs, ...)`."""
        return self.encoder.of_sums(self.rows[:, 0]) if self.growing else self.encoder.of_windows(self.rows)
