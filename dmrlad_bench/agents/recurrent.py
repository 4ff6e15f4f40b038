"""Recurrent soft actor-critic: one update on sequences (RL2, arXiv 1611.02779; off-policy with two encoders, arXiv 2110.05038)."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from dmrlad_bench.agents.actor_critic import Temperature
from dmrlad_bench.agents.critics import Twins, twin_critics
from dmrlad_bench.agents.networks import Linear, TanhGaussianPolicy, polyak_average
from dmrlad_bench.agents.optimisers import FusedAdam, schedule_learning_rate
from dmrlad_bench.agents.sequences import Sequences
from dmrlad_bench.cards.agent_sections import ActorCritic, Recurrent


class Memory(nn.Module):
    """A GRU over embedded steps. A *state* is its output joined to the current observation, which so has a short way to the heads.

    Weights start uniform in +-1/sqrt(width), drawn from `generator`.
    """

    def __init__(self, config: Recurrent, observation_dim: int, action_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.observation_dim, self.width = observation_dim, config.width
        self.state_dim = config.width + observation_dim
        self.embedding = Linear(observation_dim + action_dim + 2, config.embedding, generator)
        # made without memory first, for otherwise it would draw its weights from torch's global generator
        self.gru = nn.GRU(config.embedding, config.width, batch_first=True, device="meta").to_empty(device=generator.device)
        bound = 1.0 / math.sqrt(config.width)
        with torch.no_grad():
            for parameter in self.gru.parameters():
                parameter.copy_((torch.rand(parameter.shape, generator=generator, device=generator.device) * 2 - 1) * bound)
        self.gru.flatten_parameters()

    def forward(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        """States `(batch, steps, state_dim)` for inputs `(batch, steps, input_dim)` and the memory before them `(batch, width)`."""
        outputs, _ = self.gru(torch.relu(self.embedding(inputs)), hidden.unsqueeze(0))
        return torch.cat([outputs, inputs[..., : self.observation_dim]], -1)

    def blank(self, batch: int) -> Tensor:
        """The memory before a trial's first step, `(batch, width)`."""
        return torch.zeros(batch, self.width, device=self.embedding.weight.device, dtype=self.embedding.weight.dtype)

    @torch.no_grad()
    def after(self, burn_in: Tensor, burned: Tensor) -> Tensor:
        """The memory `(batch, width)` after the first `burned` `(batch,)` of the steps `burn_in` `(batch, steps, input_dim)`."""
        blank = self.blank(len(burn_in))
        if burn_in.shape[1] == 0:
            return blank
        outputs = self(burn_in, blank)[..., : self.width]
        last = outputs[torch.arange(len(burned), device=burned.device), (burned - 1).clamp(min=0)]
        return torch.where((burned > 0).unsqueeze(-1), last, blank)


class _Actor(nn.Module):
    def __init__(self, memory: Memory, policy: TanhGaussianPolicy) -> None:
        super().__init__()
        self.memory, self.policy = memory, policy


class _Critic(nn.Module):
    def __init__(self, memory: Memory, heads: Twins) -> None:
        super().__init__()
        self.memory, self.heads = memory, heads


class RecurrentActorCritic:
    """Actor and twin critics with a memory each, the critics' targets, the entropy temperature, and the update of all of them.

    The two memories are separate, for a shared one is found to learn worse (arXiv 2110.05038). The twins share the critics'
    memory. Targets use the online policy (SAC, arXiv 1812.05905).
    """

    def __init__(
        self, config: ActorCritic, recurrent: Recurrent, observation_dim: int, action_dim: int, generator: torch.Generator
    ) -> None:
        self.config = config
        self.target_entropy = -float(action_dim) * config.target_entropy_factor
        memory = Memory(recurrent, observation_dim, action_dim, generator)
        self.actor = _Actor(memory, TanhGaussianPolicy(memory.state_dim, action_dim, config.hidden, generator))
        memory = Memory(recurrent, observation_dim, action_dim, generator)
        self.critic = _Critic(memory, twin_critics(memory.state_dim, action_dim, config, generator))
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_critic.memory.gru.flatten_parameters()  # a copy's weights lie apart, which cuDNN would mend in every call
        self.temperature = Temperature(config, 0, generator)
        self.actor_optimiser = FusedAdam(self.actor.parameters(), config.learning_rate)
        self.critic_optimiser = FusedAdam(self.critic.parameters(), config.learning_rate)
        self.updates = 0

    def update(self, batch: Sequences, generator: torch.Generator) -> dict[str, Tensor]:
        """One gradient step on critics, actor and temperature, then target averaging; returns scalar tensors to log.

        Both losses are taken at the same parameters, so that each memory runs through the batch once.
        """
        temperature = self.temperature(batch.reward).detach()
        actor_states = self.actor.memory(batch.inputs, self.actor.memory.after(batch.burn_in, batch.burned))
        critic_states = self.critic.memory(batch.inputs[:, :-1], self.critic.memory.after(batch.burn_in, batch.burned))
        target = self.target(batch, actor_states.detach(), temperature, generator)
        critic_loss = 0.5 * masked_mean((self.critic.heads(critic_states, batch.action) - target).square(), batch.valid).sum()
        self.critic_optimiser.zero_grad(set_to_none=True)
        critic_loss.backward()

        self.critic.heads.requires_grad_(False)  # the policy's pass needs no weight gradients of the critics
        action, log_density = self.actor.policy.sample(actor_states[:, :-1], generator)
        value = self.critic.heads(critic_states.detach(), action).amin(0)
        policy_loss = masked_mean(temperature * log_density - value, batch.valid)
        self.actor_optimiser.zero_grad(set_to_none=True)
        policy_loss.backward()
        self.critic.heads.requires_grad_(True)

        self.critic_optimiser.step()
        self.actor_optimiser.step()
        log_density = log_density.detach()
        self.temperature.update(batch.reward, log_density[batch.valid], self.target_entropy)
        polyak_average(self.target_critic, self.critic, self.config.polyak)
        self.updates += 1
        return {
            "critic": critic_loss.detach(),
            "policy": policy_loss.detach(),
            "temperature": temperature,
            "entropy": -masked_mean(log_density, batch.valid),
            "value": masked_mean(value.detach(), batch.valid),
        }

    @torch.no_grad()
    def target(self, batch: Sequences, actor_states: Tensor, temperature: Tensor, generator: torch.Generator) -> Tensor:
        """y = r + gamma (1 - terminated) (min_c Q'_c(s', a') - alpha log pi(a'|s')), a' ~ pi, `(batch, length)`."""
        memory = self.target_critic.memory
        critic_states = memory(batch.inputs, memory.after(batch.burn_in, batch.burned))
        action, log_density = self.actor.policy.sample(_following(self.actor.memory, actor_states, batch), generator)
        value = self.target_critic.heads(_following(memory, critic_states, batch), action).amin(0)
        return batch.reward + self.config.discount * (1.0 - batch.terminated) * (value - temperature * log_density)

    def schedule(self, progress: float) -> None:
        """Set the learning rates of actor and critics for the share `progress` of the run that is done."""
        optimisers = (self.actor_optimiser, self.critic_optimiser)
        schedule_learning_rate(optimisers, self.config.learning_rate, self.config.learning_rate_end, progress)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"updates": self.updates}
        for name in ("actor", "critic", "target_critic", "temperature", "actor_optimiser", "critic_optimiser"):
            state[name] = getattr(self, name).state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name == "updates":
                self.updates = int(value)
            else:
                getattr(self, name).load_state_dict(value)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over the entries `(..., batch, length)` that are `valid` `(batch, length)`, `(...)`."""
    return torch.where(valid, values, torch.zeros_like(values)).sum((-2, -1)) / valid.sum()


def _following(memory: Memory, states: Tensor, batch: Sequences) -> Tensor:
    """The state that follows each step, `(batch, length, state_dim)`: the sequence's next, or one more step of the memory."""
    following = states[:, 1:]
    if len(batch.beyond) == 0:
        return following
    hidden = states[:, :-1, : memory.width][batch.apart]
    following = following.clone()
    following[batch.apart] = memory(batch.beyond.unsqueeze(1), hidden).squeeze(1)
    return following
