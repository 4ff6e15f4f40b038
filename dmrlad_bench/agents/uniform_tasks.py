"""Whole trials under tasks drawn uniformly: what may follow, where the task is not known.

A relabeller that chooses tasks stores what went well, or what is worth believing; who learns from its copies alone expects to be
lucky. Under a task that nobody chose, a trial shows what searching leads to as often as it does: nothing for most of the trial, and
then, perhaps, a belief that knows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.inference import TaskInference
from dmrlad_bench.agents.relabel import Hindsight, show_tasks
from dmrlad_bench.agents.replay import TrialReplay, uniform_below

TRIALS = 256
ENCODED_AT_A_TIME = 32


class UniformTasks:
    """`TRIALS` trials as they were lived, each under a task of its own, and the beliefs along them; made anew in every iteration.

    Args:
        hindsight: training tasks, and the family's pure reward function.
        replay: holds the trials.
        inference: whose beliefs, or None where there are none.
        with_deviation: whether the beliefs' standard deviations follow.
        task_observable: whether observations end with the task.
        generator: source of randomness.
    """

    @torch.no_grad()
    def __init__(
        self,
        hindsight: Hindsight,
        replay: TrialReplay,
        inference: TaskInference | None,
        with_deviation: bool,
        task_observable: bool,
        generator: torch.Generator,
    ) -> None:
        self.replay, self.task_observable = replay, task_observable
        data = replay.data
        self.slots = replay.draw_originals(TRIALS, generator)
        task = uniform_below(torch.full_like(self.slots, len(hindsight.tasks)), generator)
        self.task = hindsight.tasks[task]
        self.reward = hindsight.reward(data["outcome"][self.slots], self.task.unsqueeze(1)).float()
        self.belief = replay.belief.new_zeros((len(self.slots), replay.steps + 1, 0))
        if inference is not None:
            parts = zip(self.slots.split(ENCODED_AT_A_TIME), self.reward.split(ENCODED_AT_A_TIME), strict=True)
            self.belief = torch.cat([self._beliefs(inference, slots, reward, with_deviation) for slots, reward in parts])

    def _beliefs(self, inference: TaskInference, slots: Tensor, reward: Tensor, with_deviation: bool) -> Tensor:
        rows = inference.encoder.rows(self.replay.transitions(slots, slice(None), reward), self.replay.lived(slots))
        return inference.encoder.along(rows).point(with_deviation)

    def batch(self, count: int, next_belief: bool, generator: torch.Generator) -> Batch:
        """Transitions of these trials, every trial equally likely; the bootstrap state holds the belief unless `next_belief`."""
        data = self.replay.data
        entry = uniform_below(torch.full((count,), len(self.slots), device=self.slots.device), generator)
        trial = self.slots[entry]
        step = uniform_below(data["length"][trial], generator)
        belief = self.belief[entry, step]
        ahead = self.belief[entry, step + 1] if next_belief else belief
        observation, following = data["observation"][trial, step], data["next_observation"][trial, step]
        if self.task_observable:
            show_tasks(observation, following, self.task[entry])
        return Batch(
            state=torch.cat([observation, belief], -1),
            next_state=torch.cat([following, ahead], -1),
            belief=belief,
            action=data["action"][trial, step],
            reward=self.reward[entry, step],
            terminated=data["terminated"][trial, step].float(),
        )
