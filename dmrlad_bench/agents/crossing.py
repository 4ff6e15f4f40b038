"""Crossed relabelling: single steps under any task that was met, beside beliefs that know that task.

A relabelled copy files a whole trial under one task, and most of its steps say nothing there. Crossing takes tasks and steps apart:
a step of any trial, judged by the pure reward function under a task that was met (the family's success) somewhere, and a belief of that
task from any other trial. It is hindsight for single transitions (HER, arXiv 1707.01495) with HFR's foreseen beliefs (arXiv 2109.09031).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.inference import Segments
from dmrlad_bench.agents.relabel import CHUNK_BYTES, Foresight, Hindsight, hindsight_beliefs, show_tasks
from dmrlad_bench.agents.replay import TrialReplay, uniform_below

POOL = 1000  # trials at most that tasks are looked for in
KNOWING = 8  # trials at most whose beliefs stand for a task: those that met it in the most steps
MEETING_TARGETS = 0.5  # share of crossed targets at which their task is met, where it ever was


@dataclass(frozen=True)
class Meetings:
    """The steps at which tasks were met, in the order of tasks.

    Attributes:
        trial, step: `(meetings,)` where.
        first, amount: `(P,)` each task's place and number.
    """

    trial: Tensor
    step: Tensor
    first: Tensor
    amount: Tensor

    @staticmethod
    def of(task: Tensor, trial: Tensor, step: Tensor, tasks: int) -> Meetings:
        """From meetings `(meetings,)` in any order, of `tasks` tasks."""
        order = torch.argsort(task, stable=True)
        amount = torch.bincount(task, minlength=tasks)
        return Meetings(trial[order], step[order], amount.cumsum(0) - amount, amount)

    def draw(self, task: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Trial and step of a meeting with each of `task` `(...)`; whatever there is where a task was not met."""
        uniform = torch.rand(task.shape, generator=generator, device=task.device)
        place = self.first[task] + (uniform * self.amount[task]).long()
        place = place.clamp(max=max(len(self.trial) - 1, 0))
        return self.trial[place], self.step[place]


class Crossing:
    """What can be crossed of a replay as it stands: made anew in every iteration.

    Args:
        hindsight: training tasks, and the family's pure reward function.
        success: the family's pure success function.
        replay: holds the trials; those that were lived, not their copies, are looked at, a random `POOL` of them if there are more.
        task_observable: whether observations end with the task.
        generator: source of randomness.
    """

    def __init__(
        self,
        hindsight: Hindsight,
        success: Callable[[Any, Any], Any],
        replay: TrialReplay,
        task_observable: bool,
        generator: torch.Generator,
    ) -> None:
        self.hindsight, self.success, self.replay, self.task_observable = hindsight, success, replay, task_observable
        lived = replay.trials[~replay.data["copy"][: replay.size]]
        if len(lived) > POOL:
            lived = lived[torch.randperm(len(lived), generator=generator, device=lived.device)[:POOL]]
        self.pool = lived
        place, task, step, self.counts = self._meetings()
        trial, tasks = lived[place], len(hindsight.tasks)
        self.meetings = Meetings.of(task, trial, step, tasks)
        self.met = self.meetings.amount.nonzero().squeeze(-1)
        self.by_side, self.pool_by_side = {}, {}
        for side in (False, True):
            mine = replay.data["held_out"][trial] == side
            self.by_side[side] = Meetings.of(task[mine], trial[mine], step[mine], tasks)
            self.pool_by_side[side] = lived[replay.data["held_out"][lived] == side]
        self._known: Tensor | None = None

    @property
    def possible(self) -> bool:
        """Whether any task was met."""
        return len(self.met) > 0

    def _meetings(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Place in the pool, task and step `(meetings,)` of every meeting, and how many steps each trial met each task in, `(pool, P)`."""
        replay, tasks = self.replay, self.hindsight.tasks
        found, counts = [], []
        few = max(1, CHUNK_BYTES // (4 * len(tasks) * replay.steps))
        for number, chunk in enumerate(self.pool.split(few)):
            success = self.success(replay.data["outcome"][chunk].unsqueeze(1), tasks[None, :, None, :])
            success = success & replay.lived(chunk).unsqueeze(1)
            counts.append(success.sum(-1))
            found.append(success.nonzero() + torch.tensor([number * few, 0, 0], device=tasks.device))
        place, task, step = torch.cat(found).unbind(-1)
        return place, task, step, torch.cat(counts)

    @torch.no_grad()
    def foresee(self, inference: Foresight, context: str, with_deviation: bool) -> None:
        """Infer the beliefs that know the tasks: for every task that was met, those of up to `KNOWING` trials under it."""
        if not self.possible:  # where rewards are sparse, often no task is met for many iterations
            return
        replay, chosen = self.replay, min(KNOWING, len(self.pool))
        beliefs = []
        few = max(1, CHUNK_BYTES // (4 * chosen * replay.steps * inference.widest))
        for task in self.met.split(few):
            best = self.counts[:, task].topk(chosen, dim=0).indices.T.flatten()
            slots, under = self.pool[best], self.hindsight.tasks[task.repeat_interleave(chosen)]
            rewards = self.hindsight.reward(replay.data["outcome"][slots], under.unsqueeze(1)).float().unsqueeze(1)
            belief = hindsight_beliefs(inference, replay, slots, rewards, context, with_deviation)
            beliefs.append(belief.view(len(task), chosen, -1))
        self._known = torch.cat(beliefs)
        self._choices = (self.counts[:, self.met] > 0).sum(0).clamp(max=chosen)

    def batch(self, count: int, generator: torch.Generator) -> Batch:
        """Crossed transitions.

        Each draws a task among those that were met, every one equally likely, a meeting with it, and a step of the same episode at or
        before the meeting. The belief, one that knows the task, is held in the bootstrap state.
        """
        data, device = self.replay.data, self.pool.device
        which = uniform_below(torch.full((count,), len(self.met), device=device), generator)
        task = self.met[which]
        trial, last = self.meetings.draw(task, generator)
        start = self._episode_starts(trial, last)
        step = start + uniform_below(last + 1 - start, generator)
        value = self.hindsight.tasks[task]
        reward = self.hindsight.reward(data["outcome"][trial, step], value).float()
        observation, following = data["observation"][trial, step], data["next_observation"][trial, step]
        if self.task_observable:
            show_tasks(observation, following, value)
        belief = observation.new_zeros((count, 0))
        if self._known is not None:
            belief = self._known[which, uniform_below(self._choices[which], generator)]
        return Batch(
            state=torch.cat([observation, belief], -1),
            next_state=torch.cat([following, belief], -1),
            belief=belief,
            action=data["action"][trial, step],
            reward=reward,
            terminated=data["terminated"][trial, step].float(),
        )

    def targets(self, segments: Segments, share: float, held_out: bool, difference: bool, generator: torch.Generator) -> Segments:
        """`segments` with `share` of their targets crossed: what the belief says of the task is asked of steps of other trials.

        Half of them (`MEETING_TARGETS`) meet the task where any step of their side does; the others are any steps. Those of held-out
        segments are steps of held-out trials, and the others' are not.
        """
        pool, meetings = self.pool_by_side[held_out], self.by_side[held_out]
        if len(pool) == 0 or not self.possible:
            return segments
        data, statistics, dims = self.replay.data, self.replay.statistics, self.replay.dims
        shape, device = segments.reward.shape, self.pool.device
        task = segments.task.unsqueeze(-1).expand(shape)
        draws = torch.rand((2, *shape), generator=generator, device=device)
        crossed = (draws[0] < share) & segments.target
        trial = pool[uniform_below(torch.full(shape, len(pool), device=device), generator)]
        step = uniform_below(data["length"][trial], generator)
        meets = (draws[1] < MEETING_TARGETS) & (meetings.amount[task] > 0)
        if len(meetings.trial):
            met = meetings.draw(task, generator)
            trial, step = torch.where(meets, met[0], trial), torch.where(meets, met[1], step)
        observation = statistics.observation(data["observation"][trial, step])
        following = statistics.observation(data["next_observation"][trial, step])[..., :dims]
        reward = self.hindsight.reward(data["outcome"][trial, step], self.hindsight.tasks[task]).float()

        def where_crossed(ours: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(crossed.view(*shape, *(1,) * (ours.dim() - 2)), ours, theirs)

        return replace(
            segments,
            observation=where_crossed(observation, segments.observation),
            action=where_crossed(statistics.action(data["action"][trial, step]), segments.action),
            next_state=where_crossed(following - observation[..., :dims] if difference else following, segments.next_state),
            reward=where_crossed(statistics.reward(reward), segments.reward),
        )

    def _episode_starts(self, trial: Tensor, step: Tensor) -> Tensor:
        """First step of the episode that `step` of `trial` lies in; both `(n,)`."""
        episode = self.replay.data["episode"][trial]
        return (episode == episode.gather(1, step.unsqueeze(1))).int().argmax(1)
