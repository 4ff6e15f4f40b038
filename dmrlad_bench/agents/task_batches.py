"""A replay's trials by task: batches of several tasks at once, and contexts of each task's newest trials."""

from __future__ import annotations

import torch
from torch import Tensor

from dmrlad_bench.agents.replay import TrialReplay


class TaskBatches:
    """Draws from what `replay` holds at the moment of construction; nothing loops over tasks.

    Args:
        replay: where the trials lie.
        recent_trials: how many of a task's newest trials, relabelled copies included, its contexts come from.

    Attributes:
        tasks: `(T,)` the tasks that trials are stored under, in ascending order; draws name a task by its place here.
        recent: `(T, recent_trials)` slots of each task's newest trials, the newest first.
        recent_known: `(T, recent_trials)` bool, False where a task has fewer.
    """

    def __init__(self, replay: TrialReplay, recent_trials: int) -> None:
        self.replay = replay
        device = replay.device
        owner, lengths = replay.data["task_index"][: replay.size], replay.data["length"][: replay.size]
        age = (replay.next - 1 - torch.arange(replay.size, device=device)) % replay.capacity
        order = torch.argsort(age, stable=True)
        self._order = order[torch.argsort(owner[order], stable=True)]  # by task, the newest first within each
        self.tasks, amount = torch.unique_consecutive(owner[self._order], return_counts=True)
        first = amount.cumsum(0) - amount
        self._ends = lengths[self._order].cumsum(0)
        self._upper = self._ends[first + amount - 1]
        self._lower = self._ends[first] - lengths[self._order[first]]
        rank = torch.arange(recent_trials, device=device)
        self.recent_known = rank < amount.unsqueeze(-1)
        self.recent = self._order[torch.where(self.recent_known, first.unsqueeze(-1) + rank, first.unsqueeze(-1))]

    def draw_tasks(self, count: int, generator: torch.Generator) -> Tensor:
        """Places `(min(count, T),)` of different tasks."""
        uniform = torch.rand(len(self.tasks), generator=generator, device=self.tasks.device)
        return uniform.topk(min(count, len(self.tasks))).indices

    def steps(self, places: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Trial and step, each `(M, count)`: stored steps of each task, every one of them equally likely, with replacement."""
        uniform = torch.rand((len(places), count), generator=generator, device=places.device, dtype=torch.float64)
        lower, upper = self._lower[places].unsqueeze(-1), self._upper[places].unsqueeze(-1)
        flat = torch.minimum(lower + (uniform * (upper - lower)).long(), upper - 1)
        entry = torch.searchsorted(self._ends, flat, right=True)
        trial = self._order[entry]
        return trial, flat - (self._ends[entry] - self.replay.data["length"][trial])

    def contexts(self, places: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of each task's recent trials, drawn without replacement.

        Returns:
            Trial, step and validity, each `(M, C)` with C at most `count`; where a task has lived fewer steps, all of them are
            taken and the rest is not valid.
        """
        trials = self.recent[places]
        lived = self.replay.lived(trials) & self.recent_known[places].unsqueeze(-1)
        keys = torch.rand(lived.shape, generator=generator, device=places.device).masked_fill(~lived, -1.0).flatten(1)
        keys, flat = keys.topk(min(count, keys.shape[1]), sorted=False)
        return trials.gather(1, flat // self.replay.steps), flat % self.replay.steps, keys >= 0
