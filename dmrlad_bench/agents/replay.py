"""Replay of whole trials on the learner's device: a ring, its statistics, and batches drawn from it.

A context window may cross the episodes of its trial, never trials. Trials are drawn in proportion to their length, so every
stored step is equally likely, at a cost that does not depend on how many steps are stored (but for a binary search).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.inference import Segments
from dmrlad_bench.agents.interface import Problem

SMALLEST_DEVIATION = 1e-3
SHARD_KEYS = (
    "observation",
    "next_observation",
    "action",
    "reward",
    "terminated",
    "outcome",
    "episode",
    "task_index",
    "length",
    "held_out",
    "copy",
)


def uniform_below(below: Tensor, generator: torch.Generator) -> Tensor:
    """Whole numbers, each equally likely, from 0 to `below` `(...)` (exclusive, at least 1)."""
    uniform = torch.rand(below.shape, generator=generator, device=below.device, dtype=torch.float64)
    return (uniform * below).long()


class Statistics:
    """Running mean and standard deviation of observations, actions and rewards."""

    def __init__(self, observation_dim: int, action_dim: int, device: torch.device) -> None:
        self.sizes = (observation_dim, action_dim, 1)
        width = sum(self.sizes)
        self.count = 0
        self.total = torch.zeros(width, dtype=torch.float64, device=device)
        self.squares = torch.zeros(width, dtype=torch.float64, device=device)
        self._refresh()

    def update(self, observation: Tensor, action: Tensor, reward: Tensor) -> None:
        """Count steps in: `(n, observation_dim)`, `(n, action_dim)`, `(n,)`."""
        rows = torch.cat([observation, action, reward.unsqueeze(-1)], -1).double()
        self.count += rows.shape[0]
        self.total += rows.sum(0)
        self.squares += rows.square().sum(0)
        self._refresh()

    def _refresh(self) -> None:
        count = max(self.count, 1)
        mean = self.total / count
        variance = (self.squares / count - mean.square()).clamp(min=0.0)
        deviation = variance.sqrt().clamp(min=SMALLEST_DEVIATION) if self.count else torch.ones_like(mean)
        self.means = [part.float() for part in mean.split(self.sizes)]
        self.deviations = [part.float() for part in deviation.split(self.sizes)]

    def observation(self, values: Tensor) -> Tensor:
        """Normalised observations."""
        return (values - self.means[0]) / self.deviations[0]

    def action(self, values: Tensor) -> Tensor:
        """Normalised actions."""
        return (values - self.means[1]) / self.deviations[1]

    def reward(self, values: Tensor) -> Tensor:
        """Normalised rewards, of any shape."""
        return (values - self.means[2]) / self.deviations[2]

    def transition(self, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor) -> Tensor:
        """Normalised (o, a, r, o') `(..., transition_dim)`; rewards `(...)`."""
        parts = (self.observation(observation), self.action(action), self.reward(reward).unsqueeze(-1), self.observation(next_observation))
        return torch.cat(parts, -1)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "total": self.total, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self.total.copy_(state["total"])
        self.squares.copy_(state["squares"])
        self._refresh()


class TrialReplay:
    """Ring buffer of `capacity` trials of up to `steps` steps.

    `held_out` trials validate task inference; a relabelled copy (`copy`) lies on its original's side. Where tasks change inside
    episodes, `data` also holds `task_sequence`, the task in force at each step.
    """

    def __init__(self, problem: Problem, capacity: int, belief_dim: int, device: torch.device) -> None:
        self.steps = problem.horizon * problem.episodes_per_trial
        self.capacity = capacity
        self.device = device
        self.dims = problem.reconstruction_dims
        self.classes = None if problem.task_classes is None else torch.as_tensor(problem.task_classes, device=device)
        shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "observation": ((self.steps, problem.observation_dim), torch.float32),
            "next_observation": ((self.steps, problem.observation_dim), torch.float32),
            "action": ((self.steps, problem.action_dim), torch.float32),
            "reward": ((self.steps,), torch.float32),
            "terminated": ((self.steps,), torch.bool),
            "outcome": ((self.steps, problem.outcome_dim), torch.float32),
            "episode": ((self.steps,), torch.int64),
            "task_index": ((), torch.int64),
            "length": ((), torch.int64),
            "held_out": ((), torch.bool),
            "copy": ((), torch.bool),
        }
        if problem.tasks_change:
            shapes["task_sequence"] = ((self.steps,), torch.int64)
        self.data = {name: torch.zeros((capacity, *shape), dtype=kind, device=device) for name, (shape, kind) in shapes.items()}
        self.belief = torch.zeros((capacity, self.steps + 1, belief_dim), device=device)
        self.statistics = Statistics(problem.observation_dim, problem.action_dim, device)
        self.size = 0
        self.next = 0
        self.trials = torch.arange(0, device=device)
        self.ends = torch.arange(0, device=device)
        self._sides: dict[bool, tuple[Tensor, Tensor]] = {}

    def add(self, trials: dict[str, Tensor]) -> Tensor:
        """Store trials (keys of `data`, leading dimension = trials); returns the slots they went to."""
        count = trials["length"].shape[0]
        if count > self.capacity:
            raise ValueError(f"{count} trials at once do not fit schedule.replay_trials = {self.capacity}")
        slots = (torch.arange(count, device=self.device) + self.next) % self.capacity
        for name, store in self.data.items():
            store[slots] = trials[name]
        self.next = (self.next + count) % self.capacity
        self.size = min(self.size + count, self.capacity)
        lived = torch.arange(self.steps, device=self.device) < trials["length"].unsqueeze(-1)
        self.statistics.update(*(trials[name][lived] for name in ("observation", "action", "reward")))
        self._index()
        return slots

    def _index(self) -> None:
        lengths = self.data["length"][: self.size]
        self.trials = torch.arange(self.size, device=self.device)
        self.ends = lengths.cumsum(0)
        self._sides = {}
        for side in (False, True):
            members = self.trials[self.data["held_out"][: self.size] == side]
            members = members if len(members) else self.trials  # a first iteration of a single trial has only one side
            self._sides[side] = (members, (lengths[members]).cumsum(0))

    def draw_originals(self, count: int, generator: torch.Generator, without: Tensor | None = None) -> Tensor:
        """Slots, drawn with replacement, of trials stored as they were lived, `(count,)`, or `(0,)` where there are none.

        Args:
            count: how many.
            generator: source of randomness.
            without: slots that are left out.
        """
        eligible = ~self.data["copy"][: self.size]
        if without is not None:
            eligible[without] = False
        originals = self.trials[eligible]
        if len(originals) == 0:
            return originals
        return originals[torch.randint(len(originals), (count,), generator=generator, device=self.device)]

    def best_final_beliefs(self) -> Tensor:
        """Belief at the end of the stored trial with the highest return, for every task that has trials, `(tasks, belief_dim)`."""
        returns = self.data["reward"][: self.size].sum(-1)
        owner = self.data["task_index"][: self.size]
        order = torch.argsort(returns, stable=True)
        best = torch.full((int(owner.max()) + 1,), -1, device=self.device)
        best.scatter_reduce_(0, owner[order], torch.arange(self.size, device=self.device), "amax")
        slots = order[best[best >= 0]]
        return self.belief[slots, self.data["length"][slots]]

    def draw_steps(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Trial and step indices `(count,)` of steps drawn uniformly."""
        trial, flat = self._draw(self.ends, count, generator)
        return trial, flat - (self.ends[trial] - self.data["length"][trial])

    def _draw(self, ends: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` uniform draws below `ends[-1]`, and which of the intervals that end at `ends` they fall into."""
        uniform = torch.rand(count, generator=generator, device=self.device, dtype=torch.float64)
        flat = (uniform * ends[-1]).long()
        return torch.searchsorted(ends, flat, right=True).clamp(max=len(ends) - 1), flat

    def stretches(self, count: int, length: int, generator: torch.Generator, held_out: bool | None = None) -> tuple[Tensor, Tensor]:
        """Trial and first step `(count,)` of stretches of `length` steps, every stored step equally likely to lie in one.

        A stretch may begin before its trial and end behind it. `held_out` restricts the draw to the trials of one side.
        """
        trials, ends = (self.trials, self.ends) if held_out is None else self._sides[held_out]
        reach = ends + (length - 1) * torch.arange(1, len(trials) + 1, device=self.device)  # for those that begin before their trial
        entry, flat = self._draw(reach, count, generator)
        trial = trials[entry]
        return trial, flat - reach[entry] + self.data["length"][trial]

    def batch(self, count: int, next_belief: bool, generator: torch.Generator) -> Batch:
        """Transitions with their beliefs; the bootstrap state holds the belief unless `next_belief`."""
        trial, step = self.draw_steps(count, generator)
        belief = self.belief[trial, step]
        ahead = self.belief[trial, step + 1] if next_belief else belief
        return Batch(
            state=torch.cat([self.data["observation"][trial, step], belief], -1),
            next_state=torch.cat([self.data["next_observation"][trial, step], ahead], -1),
            belief=belief,
            action=self.data["action"][trial, step],
            reward=self.data["reward"][trial, step],
            terminated=self.data["terminated"][trial, step].float(),
        )

    def segments(self, count: int, length: int, window: int, held_out: bool, difference: bool, generator: torch.Generator) -> Segments:
        """`count` stretches of `length` consecutive targets with their context, every step equally likely to be a target."""
        trial, start = self.stretches(count, length, generator, held_out)
        target = start.unsqueeze(-1) + torch.arange(length, device=self.device)
        first = start - window if window else torch.zeros_like(start)
        context = first.unsqueeze(-1) + torch.arange(window + length - 1 if window else self.steps - 1, device=self.device)
        steps = self.data["length"][trial].unsqueeze(-1)
        exists = (context >= 0) & (context < steps)
        present = (target >= 0) & (target < steps)
        context, where = context.clamp(0, self.steps - 1), target.clamp(0, self.steps - 1)
        row = trial.unsqueeze(-1)
        statistics = self.statistics
        observation = statistics.observation(self.data["observation"][row, where])
        following = statistics.observation(self.data["next_observation"][row, where])[..., : self.dims]
        return Segments(
            transitions=self.transitions(row, context),
            valid=exists,
            observation=observation,
            action=statistics.action(self.data["action"][row, where]),
            next_state=following - observation[..., : self.dims] if difference else following,
            reward=statistics.reward(self.data["reward"][row, where]),
            target=present,
            position=where - first.unsqueeze(-1) if window == 0 else (target - first.unsqueeze(-1)),
            task=self.data["task_index"][trial],
            task_class=None if self.classes is None else self.classes[self.data["task_index"][trial]],
        )

    def transitions(self, trial: Tensor, step: Tensor | slice, reward: Tensor | None = None) -> Tensor:
        """Normalised (o, a, r, o') at stored places, under the stored rewards or under `reward`."""
        data = self.data
        return self.statistics.transition(
            data["observation"][trial, step],
            data["action"][trial, step],
            data["reward"][trial, step] if reward is None else reward,
            data["next_observation"][trial, step],
        )

    def lived(self, trial: Tensor) -> Tensor:
        """`(trials, steps)` bool: which steps of the stored trials exist."""
        return torch.arange(self.steps, device=self.device) < self.data["length"][trial].unsqueeze(-1)

    def shard(self, slots: Tensor) -> dict[str, np.ndarray]:
        """The stored trials at `slots`, for the append-only record that a resumed run reads back."""
        return {name: self.data[name][slots].cpu().numpy() for name in self.data}

    def add_shard(self, shard: dict[str, np.ndarray]) -> None:
        """Store a shard's trials again (statistics are restored from the checkpoint, not from here)."""
        trials = {name: torch.as_tensor(shard[name], device=self.device) for name in self.data}
        for part in range(0, len(shard["length"]), self.capacity):  # originals and copies may exceed the ring together
            self.add({name: value[part : part + self.capacity] for name, value in trials.items()})
