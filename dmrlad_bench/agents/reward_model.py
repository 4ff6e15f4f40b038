"""A learnt model of the reward of a transition under a task: r(o, a, o', task)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmrlad_bench.agents.crossing import Crossing
from dmrlad_bench.agents.networks import MLP, Linear
from dmrlad_bench.agents.optimisers import FusedAdam
from dmrlad_bench.agents.replay import Statistics, TrialReplay, uniform_below
from dmrlad_bench.cards.agent_sections import RewardModel as RewardModelConfig

MEMORY = 0.99  # of the running mean of squared errors


@dataclass(frozen=True)
class JudgedSteps:
    """Transitions, each under a task: observations without the task `(n, ...)`, tasks `(n, task_dim)`, rewards `(n,)`."""

    observation: Tensor
    action: Tensor
    next_observation: Tensor
    task: Tensor
    reward: Tensor


class RewardNetwork(nn.Module):
    """An MLP whose first layer is the sum of one of the transition and one of the task, so that pairs of them cost little."""

    def __init__(self, transition_dim: int, task_dim: int, hidden: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.transition = Linear(transition_dim, hidden[0], generator)
        self.task = Linear(task_dim, hidden[0], generator)
        self.rest = MLP(hidden[0], hidden[1:], 1, generator)

    def forward(self, transition: Tensor, task: Tensor) -> Tensor:
        """`(..., transition_dim)` and `(..., task_dim)`, which broadcast -> `(...)`."""
        return self.rest(functional.relu(self.transition(transition) + self.task(task))).squeeze(-1)


class RewardModel:
    """The network, its optimiser, and how far it is off.

    Args:
        config: the card's section.
        sizes: entries of an observation without the task, of an action, and of a task.
        generator: of the first weights.

    Attributes:
        squared_error: running mean over the batches trained on, each before it was learnt from; 1 at first, so that nobody relies on it.
    """

    def __init__(self, config: RewardModelConfig, sizes: tuple[int, int, int], generator: torch.Generator) -> None:
        observation_dim, action_dim, self.task_dim = sizes
        self.config = config
        self.network = RewardNetwork(2 * observation_dim + action_dim, self.task_dim, config.hidden, generator)
        self.optimiser = FusedAdam(self.network.parameters(), config.learning_rate)
        self.squared_error = torch.ones((), device=generator.device)
        self.updates = 0

    @property
    def deviation(self) -> float:
        """s: the root of the mean squared error."""
        return max(float(self.squared_error), 1e-6) ** 0.5

    def predict(self, steps: JudgedSteps, statistics: Statistics) -> Tensor:
        """Rewards; the steps' own are not read. Tasks may be of other shape, where they broadcast against the steps."""
        padding = (0, self.task_dim)  # the statistics are those of observations that end with the task
        seen = [
            statistics.observation(functional.pad(part, padding))[..., : part.shape[-1]]
            for part in (steps.observation, steps.next_observation)
        ]
        task = (steps.task - statistics.means[0][-self.task_dim :]) / statistics.deviations[0][-self.task_dim :]
        return self.network(torch.cat([seen[0], statistics.action(steps.action), seen[1]], -1), task)

    def update(self, steps: JudgedSteps, statistics: Statistics) -> dict[str, Tensor]:
        """A gradient step on the squared error; returns it."""
        loss = (self.predict(steps, statistics) - steps.reward).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.squared_error = MEMORY * self.squared_error + (1 - MEMORY) * loss.detach()
        self.updates += 1
        return {"reward_model": loss.detach()}

    def state_dict(self) -> dict[str, Any]:
        parts = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "squared_error": self.squared_error}
        return copy.deepcopy(parts) | {"updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.squared_error = state["squared_error"].to(self.squared_error.device).clone()
        self.updates = int(state["updates"])


def judged_steps(crossing: Crossing, replay: TrialReplay, count: int, generator: torch.Generator) -> JudgedSteps:
    """`count` stored transitions, each under a training task, with the rewards that they would have had there.

    Where rewards are sparse, nearly every step says the same under nearly every task. So a third of the batch are steps that met a task,
    under that task (every task that was met is equally likely); a third are such steps under any task; the rest are any steps under any.
    Where no task was met, all are of the last kind.
    """
    tasks, data = crossing.hindsight.tasks, replay.data
    third = count // 3 if crossing.possible else 0
    trial, step = replay.draw_steps(count - 2 * third, generator)
    task = uniform_below(torch.full((count - third,), len(tasks), device=tasks.device), generator)
    if third:
        met = crossing.met[uniform_below(torch.full((2 * third,), len(crossing.met), device=tasks.device), generator)]
        meeting = crossing.meetings.draw(met, generator)
        trial, step = torch.cat([meeting[0], trial]), torch.cat([meeting[1], step])
        task = torch.cat([met[:third], task])
    value, task_dim = tasks[task], tasks.shape[1]
    return JudgedSteps(
        observation=data["observation"][trial, step][:, :-task_dim],
        action=data["action"][trial, step],
        next_observation=data["next_observation"][trial, step][:, :-task_dim],
        task=value,
        reward=crossing.hindsight.reward(data["outcome"][trial, step], value).float(),
    )
