"""Recurrent agents on the toy task family, and the learner's losses once more: step by step, row by row, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from toy_problem import generator_of, toy_problem

from dmrlad_bench.agents.build import build_agent
from dmrlad_bench.agents.interface import Problem, Trials
from dmrlad_bench.agents.recurrent import Memory, RecurrentActorCritic
from dmrlad_bench.agents.rl2 import Rl2
from dmrlad_bench.cards.agent_config import AgentConfig

PROBLEM = toy_problem()
SMALL: dict[str, dict[str, Any]] = {
    "inference": {"kind": "none"},
    "relabel": {"kind": "none"},
    "recurrent": {"embedding": 6, "width": 7},
    "actor_critic": {"critic": "scalar", "hidden": (8,), "batch_size": 4},
    "exploration": {"initial": "policy"},
    "schedule": {"policy_updates": 3, "reconstruction_updates": 0, "replay_trials": 60},
}


def recurrent_config(**sections: dict[str, Any]) -> AgentConfig:
    """A complete recurrent agent of tiny networks."""
    content = {name: {**defaults, **sections.get(name, {})} for name, defaults in SMALL.items()}
    return AgentConfig(name="toy", algorithm="rl2", description="", **content)  # pyright: ignore[reportArgumentType]


def recurrent_agent(seed: int = 0, problem: Problem = PROBLEM, **sections: dict[str, Any]) -> Rl2:
    agent = build_agent(recurrent_config(**sections), problem, np.random.SeedSequence(seed), "cpu")
    assert isinstance(agent, Rl2)
    return agent


def double_precision(learner: RecurrentActorCritic) -> RecurrentActorCritic:
    """The learner with networks in float64."""
    for module in (learner.actor, learner.critic, learner.target_critic):
        module.double()
    return learner


def gru_step(memory: Memory, inputs: Tensor, hidden: Tensor) -> Tensor:
    """One step of the GRU of Cho et al. (arXiv 1406.1078) as torch documents it, `(input_dim,)`, `(width,)` -> `(width,)`."""
    embedded = torch.relu(memory.embedding.weight @ inputs + memory.embedding.bias)
    gru: Any = memory.gru
    from_input = (gru.weight_ih_l0 @ embedded + gru.bias_ih_l0).chunk(3)
    from_hidden = (gru.weight_hh_l0 @ hidden + gru.bias_hh_l0).chunk(3)
    reset = torch.sigmoid(from_input[0] + from_hidden[0])
    update = torch.sigmoid(from_input[1] + from_hidden[1])
    new = torch.tanh(from_input[2] + reset * from_hidden[2])
    return (1 - update) * new + update * hidden


@dataclass
class Reference:
    """The losses on sequences of `trials`, from the definition.

    Attributes:
        learner: networks in float64.
        trials: as stored.
        bootstrap, burn_in, length: as in the card's section.
    """

    learner: RecurrentActorCritic
    trials: Trials
    bootstrap: str
    burn_in: int
    length: int

    def __post_init__(self) -> None:
        kept = np.arange(self.trials.reward.shape[1]) < self.trials.length[:, None]

        def scale(values: np.ndarray) -> tuple[Any, Any]:
            rows = values[kept].astype(np.float64)
            return rows.mean(0), rows.std(0)

        self.scales = [scale(part) for part in (self.trials.observation, self.trials.action, self.trials.reward)]

    def seen(self, observation: np.ndarray, action: Any, reward: Any, over: float) -> Tensor:
        """What the memory sees; `action` is None at the trial's first step."""
        normal = [
            (part - mean) / deviation
            for part, (mean, deviation) in zip((observation, action, reward), self.scales, strict=True)
            if part is not None
        ]
        if action is None:
            normal += [np.zeros(self.trials.action.shape[-1]), 0.0]
        return torch.as_tensor(np.concatenate([*(np.atleast_1d(part) for part in normal), [over]]), dtype=torch.float64)

    def stored(self, row: int, step: int) -> Tensor:
        trials = self.trials
        if step == 0:
            return self.seen(trials.observation[row, 0], None, None, 0.0)
        over = float(trials.episode[row, step] != trials.episode[row, step - 1])
        return self.seen(trials.observation[row, step], trials.action[row, step - 1], trials.reward[row, step - 1], over)

    def states(self, memory: Memory, row: int, start: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Step -> (the state at it, the state that follows it)."""
        trials, dim = self.trials, self.trials.observation.shape[-1]
        begin, end = max(start, 0), min(start + self.length, int(trials.length[row]))
        hidden = torch.zeros(memory.width, dtype=torch.float64)
        for step in range(max(begin - self.burn_in, 0), begin):
            hidden = gru_step(memory, self.stored(row, step), hidden).detach()
        found = {}
        for step in range(begin, end):
            inputs = self.stored(row, step)
            hidden = gru_step(memory, inputs, hidden)
            next_exists = step + 1 < trials.length[row]
            if next_exists and (self.bootstrap == "trial" or trials.episode[row, step + 1] == trials.episode[row, step]):
                ahead = self.stored(row, step + 1)
            else:
                ahead = self.seen(trials.next_observation[row, step], trials.action[row, step], trials.reward[row, step], 0.0)
            following = torch.cat([gru_step(memory, ahead, hidden), ahead[:dim]])
            found[step] = (torch.cat([hidden, inputs[:dim]]), following)
        return found

    def losses(self, rows: list[int], starts: list[int], seed: int) -> tuple[Tensor, Tensor]:
        """Critic and policy loss with the noise that `generator_of(seed)` gives the learner."""
        learner, config, trials = self.learner, self.learner.config, self.trials
        generator = generator_of(seed)
        shape = (len(rows), self.length, trials.action.shape[-1])
        ahead_noise, noise = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
        alpha = config.initial_temperature
        critic_terms, policy_terms = [], []
        for at, (row, start) in enumerate(zip(rows, starts, strict=True)):
            actor, critic, target = (
                self.states(part.memory, row, start) for part in (learner.actor, learner.critic, learner.target_critic)
            )
            for step in actor:
                entry = step - max(start, 0)
                action, log_density = squashed(learner.actor.policy, actor[step][1], ahead_noise[at, entry])
                ahead = torch.stack([head(target[step][1], action) for head in learner.target_critic.heads]).min()
                inside = self.bootstrap == "trial" and step + 1 < trials.length[row]  # the trial goes on with its next episode
                going_on = 0.0 if trials.terminated[row, step] and not inside else config.discount
                goal = (float(trials.reward[row, step]) + going_on * (ahead - alpha * log_density)).detach()
                lived = torch.as_tensor(trials.action[row, step], dtype=torch.float64)
                critic_terms.append(sum(0.5 * (head(critic[step][0], lived) - goal) ** 2 for head in learner.critic.heads))
                action, log_density = squashed(learner.actor.policy, actor[step][0], noise[at, entry])
                value = torch.stack([head(critic[step][0].detach(), action) for head in learner.critic.heads]).min()
                policy_terms.append(alpha * log_density - value)
        return torch.stack(critic_terms).mean(), torch.stack(policy_terms).mean()  # pyright: ignore[reportArgumentType]


def squashed(policy: nn.Module, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A tanh-Gaussian action and its log density, by the change of variables."""
    mean, log_deviation = policy(state)
    raw = mean + log_deviation.exp() * noise
    density = torch.distributions.Normal(mean, log_deviation.exp()).log_prob(raw) - torch.log(1 - torch.tanh(raw) ** 2)
    return torch.tanh(raw), density.sum()
