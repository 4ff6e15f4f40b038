"""One soft actor-critic update for either critic (SAC, arXiv 1812.05905; DSAC, arXiv 2004.14547)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dmrlad_bench.agents.critics import (
    FractionProposal,
    Fractions,
    draw_fractions,
    quantile_huber_loss,
    risk_value,
    scheduled_risk,
    twin_critics,
)
from dmrlad_bench.agents.graphs import GraphedUpdate, changing_tensors
from dmrlad_bench.agents.networks import MLP, TanhGaussianPolicy, polyak_average
from dmrlad_bench.agents.optimisers import FusedAdam, schedule_learning_rate
from dmrlad_bench.cards.agent_sections import ActorCritic


@dataclass(frozen=True)
class Batch:
    """Transitions for one update; a state is the observation followed by the belief.

    Attributes:
        state, next_state: `(batch, state_dim)`. Only the critic's loss sends a gradient into `state`, for whoever infers by it.
        belief: `(batch, belief_dim)`, the tail of `state` again, for a temperature that depends on the task.
        action: `(batch, action_dim)`.
        reward: `(batch,)`.
        terminated: `(batch,)` float, 1 where bootstrapping stops.
    """

    state: Tensor
    next_state: Tensor
    belief: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor


class SoftActorCritic:
    """Policy, twin critics, their targets, the entropy temperature, and the update of all of them."""

    def __init__(self, config: ActorCritic, state_dim: int, belief_dim: int, action_dim: int, generator: torch.Generator) -> None:
        self.config = config
        self.target_entropy = -float(action_dim) * config.target_entropy_factor
        self.quantile = config.critic == "quantile"
        self.policy = TanhGaussianPolicy(state_dim, action_dim, config.hidden, generator)
        self.critics = twin_critics(state_dim, action_dim, config, generator)
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.averaged_policy = copy.deepcopy(self.target_policy) if config.averaging < 1 else None
        self.temperature = Temperature(config, belief_dim, generator)
        self.policy_optimiser = FusedAdam(self.policy.parameters(), config.learning_rate)
        self.critic_optimiser = FusedAdam(self.critics.parameters(), config.learning_rate)
        self.proposal: FractionProposal | None = None
        if self.quantile and config.fractions == "learned":
            self.proposal = FractionProposal(state_dim, action_dim, config, generator)
            self.proposal_optimiser = FusedAdam(self.proposal.parameters(), config.fraction_learning_rate)
        self.updates = 0
        self._graphed: GraphedUpdate[Batch] | None = None

    def update(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step on critics, policy and temperature, then target averaging; returns scalar tensors to log."""
        metrics = self._gradient_step(batch, generator) if self._graphed is None else self._graphed(batch)
        self.updates += 1
        if self.averaged_policy is not None:  # the plain mean at first, so that the untrained policy is soon forgotten
            polyak_average(self.averaged_policy, self.policy, max(self.config.averaging, 1 / self.updates))
        return metrics

    def use_graph(self, generator: torch.Generator) -> GraphedUpdate[Batch]:
        """Let `update`, which is then always to be called with this generator and batches of one size, go through a CUDA graph.

        Not for who learns from the gradient of `Batch.state`.
        """
        moves = self.config.risk_parameter_end is not None
        reason = "the risk parameter changes with every update" if moves else None
        self._graphed = GraphedUpdate(lambda batch: self._gradient_step(batch, generator), self._changing, generator, reason)
        return self._graphed

    def _changing(self) -> list[Tensor]:
        modules = [self.policy, self.critics, self.target_policy, self.target_critics, self.temperature.module]
        optimisers = [self.policy_optimiser, self.critic_optimiser]
        if self.temperature.optimiser is not None:
            optimisers.append(self.temperature.optimiser)
        if self.proposal is not None:
            modules.append(self.proposal)
            optimisers.append(self.proposal_optimiser)
        return changing_tensors(modules, optimisers)

    def _gradient_step(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        temperature = self.temperature(batch.belief).detach()
        critic_loss = self._critic_loss(batch, temperature, generator)
        self.critic_optimiser.zero_grad(set_to_none=True)
        critic_loss.backward()
        self.critic_optimiser.step()
        metrics = {"critic": critic_loss.detach()}
        batch = replace(batch, state=batch.state.detach())
        if self.proposal is not None:
            metrics["fractions"] = self._update_proposal(batch)

        self.critics.requires_grad_(False)  # the policy's pass needs no weight gradients of the critics
        action, log_density = self.policy.sample(batch.state, generator)
        value = self.value(batch.state, action, generator)
        policy_loss = (temperature * log_density - value).mean()
        self.policy_optimiser.zero_grad(set_to_none=True)
        policy_loss.backward()
        self.policy_optimiser.step()
        self.critics.requires_grad_(True)

        self.temperature.update(batch.belief, log_density.detach(), self.target_entropy)
        polyak_average(self.target_critics, self.critics, self.config.polyak)
        polyak_average(self.target_policy, self.policy, self.config.polyak)
        metrics.update(
            policy=policy_loss.detach(),
            temperature=temperature.mean(),
            entropy=-log_density.detach().mean(),
            value=value.detach().mean(),
        )
        return metrics

    def act(self, state: Tensor, generator: torch.Generator, deterministic: bool, noise: Tensor | None = None) -> Tensor:
        """Actions `(n, action_dim)`: a draw from the policy, with `noise` if given, or the mode of the average of policies."""
        if not deterministic:
            return self.policy.draw(state, generator, noise)
        return (self.policy if self.averaged_policy is None else self.averaged_policy).mode(state)

    def schedule(self, progress: float) -> None:
        """Set the learning rates of policy and critics for the share `progress` of the run that is done."""
        optimisers = (self.policy_optimiser, self.critic_optimiser)
        schedule_learning_rate(optimisers, self.config.learning_rate, self.config.learning_rate_end, progress)

    def fractions(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Fractions:
        """The configured kind of fractions for a batch of states and actions."""
        if self.proposal is not None:
            with torch.no_grad():
                return self.proposal(state, action)
        return draw_fractions(state.shape[0], self.config, generator)

    def value(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """Q(s, a) `(batch,)` of the pessimistic twin, under the configured risk measure."""
        measure, parameter = self.config.risk, scheduled_risk(self.config, self.updates)
        if measure == "neutral":
            return self.mean_value(state, action, generator)
        if measure == "var":
            tau = torch.full((1, 1), parameter, device=state.device)
            return self.critics(state, action, tau).amin(0).squeeze(-1)
        fractions = self.fractions(state, action, generator)
        return risk_value(self.critics(state, action, fractions.midpoints).amin(0), fractions, measure, parameter)

    def mean_value(self, state: Tensor, action: Tensor, generator: torch.Generator, fraction_count: int | None = None) -> Tensor:
        """Q(s, a) `(batch,)` of the pessimistic twin, whatever the risk measure.

        With quantile critics it is the mean over the configured fractions, or over the `fraction_count` of a Gauss-Legendre rule.
        """
        if not self.quantile:
            return self.critics(state, action).amin(0)
        fractions = self.fractions(state, action, generator) if fraction_count is None else Fractions.gauss(fraction_count, state.device)
        return risk_value(self.critics(state, action, fractions.midpoints).amin(0), fractions, "neutral", 0.0)

    def _critic_loss(self, batch: Batch, temperature: Tensor, generator: torch.Generator) -> Tensor:
        discount = self.config.discount * (1.0 - batch.terminated)
        with torch.no_grad():
            next_action, next_log_density = self.target_policy.sample(batch.next_state, generator)
            bonus = temperature * next_log_density
            if self.quantile:
                ahead = self.fractions(batch.next_state, next_action, generator)
                next_value = self.target_critics(batch.next_state, next_action, ahead.midpoints).amin(0)
                target = batch.reward.unsqueeze(-1) + discount.unsqueeze(-1) * (next_value - bonus.unsqueeze(-1))
            else:
                next_value = self.target_critics(batch.next_state, next_action).amin(0)
                target = batch.reward + discount * (next_value - bonus)
        if not self.quantile:
            return 0.5 * (self.critics(batch.state, batch.action) - target).square().mean(-1).sum()
        here = self.fractions(batch.state, batch.action, generator)
        prediction = self.critics(batch.state, batch.action, here.midpoints)
        return quantile_huber_loss(prediction, target, here.midpoints, ahead.weights)

    def _update_proposal(self, batch: Batch) -> Tensor:
        """FQF's gradient of the Wasserstein distance at each inner fraction: 2 Z(tau_i) - Z(tau_hat_i) - Z(tau_hat_{i+1})."""
        assert self.proposal is not None
        fractions = self.proposal(batch.state, batch.action)
        inner = fractions.weights.cumsum(-1)[:, :-1]
        with torch.no_grad():
            at_inner = self.critics(batch.state, batch.action, inner).mean(0)
            at_middle = self.critics(batch.state, batch.action, fractions.midpoints).mean(0)
            slope = 2 * at_inner - at_middle[:, :-1] - at_middle[:, 1:]
        loss = (slope * inner).sum(-1).mean()
        self.proposal_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.proposal_optimiser.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"updates": self.updates, "temperature": self.temperature.state_dict()}
        for name in ("policy", "critics", "target_policy", "target_critics", "policy_optimiser", "critic_optimiser"):
            state[name] = getattr(self, name).state_dict()
        if self.averaged_policy is not None:
            state["averaged_policy"] = self.averaged_policy.state_dict()
        if self.proposal is not None:
            state["proposal"] = self.proposal.state_dict()
            state["proposal_optimiser"] = self.proposal_optimiser.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name == "updates":
                self.updates = int(value)
            else:
                getattr(self, name).load_state_dict(value)


class Temperature:
    """The entropy temperature alpha: tuned, fixed, or a small network of the belief."""

    LATENT_WIDTH = 32

    def __init__(self, config: ActorCritic, belief_dim: int, generator: torch.Generator) -> None:
        self.kind = config.temperature
        start = torch.tensor(config.initial_temperature, device=generator.device).log()
        self.log_start = start
        self.module: nn.Module = nn.Module()
        if self.kind == "latent":
            self.module = MLP(belief_dim, (self.LATENT_WIDTH,), 1, generator)
        else:
            self.module.register_parameter("log_temperature", nn.Parameter(start.clone(), requires_grad=self.kind == "tuned"))
        self.optimiser = FusedAdam(self.module.parameters(), config.temperature_learning_rate) if self.kind != "fixed" else None

    def __call__(self, belief: Tensor) -> Tensor:
        """alpha, a scalar or `(batch,)`."""
        return self._log(belief).exp()

    def _log(self, belief: Tensor) -> Tensor:
        if self.kind == "latent":
            return self.log_start + self.module(belief).squeeze(-1)
        return self.module.log_temperature  # type: ignore[return-value]

    def update(self, belief: Tensor, log_density: Tensor, target_entropy: float) -> None:
        """Minimise -log alpha (log pi + target entropy)."""
        if self.optimiser is None:
            return
        loss = -(self._log(belief) * (log_density + target_entropy)).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"module": self.module.state_dict()}
        if self.optimiser is not None:
            state["optimiser"] = self.optimiser.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        if self.optimiser is not None:
            self.optimiser.load_state_dict(state["optimiser"])
