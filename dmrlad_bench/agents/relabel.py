"""Relabelling: which other task a trial is stored under (random; hindsight, 2002.11708; hindsight-foresight, HFR, arXiv 2109.09031)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import SoftActorCritic
from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.interface import Metrics
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards.agent_sections import Relabel

CHUNK_BYTES = 256 * 2**20  # of rewards under every task that are looked at together
DRAW_BYTES = 256 * 2**20  # trials whose activations would fill this share one draw of noise: part of what a seed means, so it never changes
CANDIDATES = 100


@dataclass(frozen=True)
class Hindsight:
    """What relabelling needs to know of the training tasks.

    Attributes:
        tasks: `(P, task_dim)`.
        reward: the family's pure reward function.
    """

    tasks: Tensor
    reward: Callable[[Any, Any], Any]

    def rewards(self, outcome: Tensor, sequence: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Rewards of trials `(n, steps, outcome_dim)` under every task: `(n, P, steps)` float32.

        Where tasks change, `sequence` `(n, steps)` holds those lived in and `first` `(n,)` what each trial began with.
        """
        if sequence is None or first is None:
            return self.reward(outcome.unsqueeze(1), self.tasks[None, :, None, :]).float()
        every = torch.arange(len(self.tasks), device=outcome.device)
        under = self.beginning_with(every.unsqueeze(0), sequence.unsqueeze(1), first.unsqueeze(1))
        return self.reward(outcome.unsqueeze(1), self.tasks[under]).float()

    def beginning_with(self, task: Tensor, sequence: Tensor, first: Tensor) -> Tensor:
        """Task sequences `(..., steps)` that begin with `task` in place of `first`, both `(...)`, and change as before.

        Environments draw a sequence as its first task and offsets between successive task numbers, modulo the number of tasks.
        The offsets are kept: what comes out is a sequence that is drawn as often as the one that was lived.
        """
        return (sequence + (task - first).unsqueeze(-1)) % len(self.tasks)


class ContextRows(Protocol):
    """An encoder that sees a context as one row of numbers for each of its transitions."""

    def rows(self, transitions: Tensor, valid: Tensor) -> Tensor:
        """Normalised (o, a, r, o') `(..., steps, transition_dim)` -> `(..., steps, features)`; rows that are not `valid` are zero."""
        ...

    def of_context(self, rows: Tensor) -> Belief:
        """The belief after all rows."""
        ...


class Foresight(Protocol):
    """What relabelling needs of an agent's task inference."""

    @property
    def encoder(self) -> ContextRows: ...

    @property
    def widest(self) -> int:
        """Entries of the largest activation that a transition needs in the encoder."""
        ...

    def reach(self, context: str) -> int:
        """How many of a trial's last transitions the context `window` or `trajectory` holds; 0 = all."""
        ...


def hindsight_beliefs(
    inference: Foresight, replay: TrialReplay, slots: Tensor, rewards: Tensor, context: str, with_deviation: bool = False
) -> Tensor:
    """Point beliefs of stored trials under given rewards.

    Args:
        inference: whose beliefs.
        replay: where the trials lie.
        slots: `(n,)` their places.
        rewards: `(n, P, steps)` rewards under P tasks.
        with_deviation: whether the beliefs' standard deviations follow.
        context: `window` (the trial's last W transitions) or `trajectory` (all of it).

    Returns:
        `(n, P, L)` or, with deviations, `(n, P, 2 L)`.
    """
    encoder, data = inference.encoder, replay.data
    lived = replay.lived(slots)
    window = inference.reach(context)
    if window:
        length = data["length"][slots].unsqueeze(-1)
        steps = length - window + torch.arange(window, device=slots.device)
        lived = steps >= 0
        steps = steps.clamp(min=0)
    else:
        steps = torch.arange(replay.steps, device=slots.device).expand(len(slots), -1)
    reward = rewards.gather(2, steps.unsqueeze(1).expand(-1, rewards.shape[1], -1))
    rows = _rows_under_every_task(inference, replay, slots.unsqueeze(-1).expand_as(steps), steps, reward, lived)
    return encoder.of_context(rows).point(with_deviation)


def _rows_under_every_task(inference: Foresight, replay: TrialReplay, trial: Tensor, step: Tensor, reward: Tensor, lived: Tensor) -> Tensor:
    """The encoder's rows `(n, P, steps, features)` of transitions at `trial` and `step` `(n, steps)` under rewards `(n, P, steps)`.

    A sparse reward is one and the same number under all tasks but the few that a transition is near to. So a transition is encoded
    once with its commonest reward (the median, where there is one), and again only for the tasks under which its reward is another.
    """
    common = reward.median(1).values
    row, task, column = (reward != common.unsqueeze(1)).nonzero(as_tuple=True)
    at = torch.cat([trial.flatten(), trial[row, column]]), torch.cat([step.flatten(), step[row, column]])
    encoded = torch.cat([common.flatten(), reward[row, task, column]])
    place = torch.arange(common.numel(), device=common.device).view(len(common), 1, common.shape[1]).repeat(1, reward.shape[1], 1)
    place[row, task, column] = torch.arange(common.numel(), len(encoded), device=common.device)
    data, encoder = replay.data, inference.encoder
    parts = (data["observation"][at], data["action"][at], encoded, data["next_observation"][at])
    rows = encoder.rows(replay.statistics.transition(*parts), torch.ones_like(encoded))
    return rows[place] * lived[:, None, :, None]


def utility(
    learner: SoftActorCritic, belief: Tensor, start: Tensor, generator: torch.Generator, fraction_count: int | None = None
) -> Tensor:
    """U: mean over start observations of Q(s0, a ~ pi(.|s0, z), z), the mean over fractions of the minimum of the twins.

    Args:
        learner: policy and critics.
        belief: `(n, P, L)`.
        start: `(P, U, observation_dim)` start observations of each task.
        generator: source of randomness.
        fraction_count: of the Gauss-Legendre rule that averages over fractions; None = the critics' own fractions.

    Returns:
        `(n, P)`.
    """
    count, tasks, latent = belief.shape
    starts = start.shape[1]
    state = torch.cat([start.unsqueeze(0).expand(count, -1, -1, -1), belief.unsqueeze(2).expand(-1, -1, starts, -1)], -1).reshape(
        count * tasks * starts, start.shape[-1] + latent
    )
    action = learner.policy.draw(state, generator)
    return learner.mean_value(state, action, generator, fraction_count).view(count, tasks, starts).mean(-1)


class Relabeller:
    """Draws the tasks that copies of newly stored trials are filed under.

    Args:
        config: the card's section.
        hindsight: training tasks and reward function.
        value_scale: what the critics' values count one unit of return as.
        task_observable: whether observations end with the task, which copies must then show anew.
    """

    def __init__(self, config: Relabel, hindsight: Hindsight, value_scale: float = 1.0, task_observable: bool = False) -> None:
        self.config = config
        self.hindsight = hindsight
        self.by_gain = config.copies_by_gain if config.kind == "hfr" else 0
        self.temperature = config.temperature * value_scale
        self.task_observable = task_observable

    def store_copies(
        self, slots: Tensor, replay: TrialReplay, inference: Foresight | None, learner: SoftActorCritic, generator: torch.Generator
    ) -> tuple[Tensor, Metrics]:
        """Store copies of the new trials at `slots`, and of `revisited` earlier ones; returns the copies' slots, and what to log."""
        sources = slots
        if self.config.revisited:
            sources = torch.cat([slots, replay.draw_originals(self.config.revisited, generator, without=slots)])
        chosen = self.draw(sources, replay, inference, learner, generator)
        source, task = sources.repeat_interleave(chosen.shape[1]), chosen.flatten()
        if self.by_gain:
            further = self.pairs_by_gain(slots, self.by_gain * len(slots), replay, generator)
            source, task = torch.cat([source, further[0]]), torch.cat([task, further[1]])
        copies = {name: value[source] for name, value in replay.data.items()}
        in_force = self.hindsight.tasks[task].unsqueeze(1)
        if "task_sequence" in copies:
            copies["task_sequence"] = self.hindsight.beginning_with(task, copies["task_sequence"], copies["task_index"])
            in_force = self.hindsight.tasks[copies["task_sequence"]]
        copies["task_index"], copies["copy"] = task, torch.ones_like(task, dtype=torch.bool)
        copies["reward"] = self.hindsight.reward(copies["outcome"], in_force).float() * replay.lived(source)
        if self.task_observable:
            _show(copies, in_force)
        metrics = {"relabelled_return": float(copies["reward"].sum(-1).mean()), "relabelled_tasks": float(len(torch.unique(task)))}
        return replay.add(copies), metrics

    @torch.no_grad()
    def pairs_by_gain(self, slots: Tensor, count: int, replay: TrialReplay, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`count` trials and tasks, the tasks drawn in proportion to what their best candidate gains over the mean one.

        Candidates are the trials at `slots` and earlier ones.
        """
        candidates = torch.cat([slots, replay.draw_originals(CANDIDATES, generator, without=slots)])
        returns = self._returns(candidates, replay)
        gain = returns.max(0).values - returns.mean(0)
        task = gain.clamp(min=1e-6).multinomial(count, replacement=True, generator=generator)
        return candidates[returns.argmax(0)[task]], task

    @torch.no_grad()
    def draw(
        self, slots: Tensor, replay: TrialReplay, inference: Foresight | None, learner: SoftActorCritic, generator: torch.Generator
    ) -> Tensor:
        """New task indices `(n, copies)` for the trials at `slots`; the copies of a trial get different tasks."""
        tasks = len(self.hindsight.tasks)
        copies = min(self.config.copies - self.by_gain, tasks)
        if self.config.kind == "random":
            scores = torch.zeros((len(slots), tasks), device=slots.device)
        elif self.config.kind == "hindsight":
            scores = self.return_scores(slots, replay, generator)
        else:
            assert inference is not None
            scores = self.scores(slots, replay, inference, learner, generator)
        if self.config.draw == "sample" or self.config.kind == "random":
            uniform = torch.rand(scores.shape, generator=generator, device=scores.device).clamp(1e-20, 1 - 1e-7)
            scores = scores - torch.log(-torch.log(uniform))  # Gumbel: the largest are draws from the softmax, without replacement
        return scores.topk(copies, dim=-1).indices

    def scores(
        self, slots: Tensor, replay: TrialReplay, inference: Foresight, learner: SoftActorCritic, generator: torch.Generator
    ) -> Tensor:
        """U_psi(T) / temperature - log Z_psi for the trials at `slots` and every training task, `(n, P)`."""
        start = self.starts(replay, generator)
        normaliser = self.log_normaliser(replay, inference, learner, start, generator)
        return self.utilities(slots, replay, inference, learner, start, generator) / self.temperature - normaliser

    def utilities(
        self, slots: Tensor, replay: TrialReplay, inference: Foresight, learner: SoftActorCritic, start: Tensor, generator: torch.Generator
    ) -> Tensor:
        """U_psi(T) for the trials at `slots` and every training task, `(n, P)`."""
        rows = []
        for chunk in slots.split(self._sharing(replay, inference, learner)):
            rewards = self._rewards(chunk, replay)
            belief = self._beliefs(chunk, rewards, replay, inference, learner)
            rows.append(utility(learner, belief, start, generator, self.config.utility_fractions))
        return torch.cat(rows)

    def return_scores(self, slots: Tensor, replay: TrialReplay, generator: torch.Generator) -> Tensor:
        """As `scores`, with the trial's own return under psi in place of the utility: no beliefs, no critics; `(n, P)`."""
        chosen = self.collected_in_every_task(replay, self.config.normaliser_trials, generator)
        own = torch.stack([self._own_rewards(chunk, replay).sum(-1) for chunk in chosen.T])
        return self._returns(slots, replay) / self.config.temperature - _log_mean_exp(own / self.config.temperature, 0)

    def _returns(self, slots: Tensor, replay: TrialReplay) -> Tensor:
        """Returns of the trials at `slots` under every task, `(n, P)`."""
        returns = []
        for chunk in slots.split(max(1, CHUNK_BYTES // (4 * len(self.hindsight.tasks) * replay.steps))):
            returns.append((self._rewards(chunk, replay) * replay.lived(chunk).unsqueeze(1)).sum(-1))
        return torch.cat(returns)

    def _rewards(self, slots: Tensor, replay: TrialReplay) -> Tensor:
        """Rewards of the trials at `slots` under every task that they might have begun with, `(n, P, steps)`."""
        data = replay.data
        changes = (data["task_sequence"][slots], data["task_index"][slots]) if "task_sequence" in data else ()
        return self.hindsight.rewards(data["outcome"][slots], *changes)

    def starts(self, replay: TrialReplay, generator: torch.Generator) -> Tensor:
        """Start observations of every task, drawn from the trials stored under it, `(P, U, observation_dim)`."""
        chosen = self._members(replay, self.config.utility_batch, generator, among=torch.ones_like(replay.data["copy"][: replay.size]))
        return replay.data["observation"][chosen, 0]

    def log_normaliser(
        self, replay: TrialReplay, inference: Foresight, learner: SoftActorCritic, start: Tensor, generator: torch.Generator
    ) -> Tensor:
        """log Z_psi = log mean_m exp (U_psi(T_m) / temperature), `(P,)`, over M trials T_m collected in psi, no copies."""
        chosen = self.collected_in_every_task(replay, self.config.normaliser_trials, generator)
        values = []
        for chunk in chosen.T.split(self._sharing(replay, inference, learner)):
            flat = chunk.reshape(-1)
            rewards = torch.cat([self._own_rewards(row, replay) for row in chunk]).unsqueeze(1)
            belief = self._beliefs(flat, rewards, replay, inference, learner)
            seen = belief.view(len(chunk), len(start), -1)
            values.append(utility(learner, seen, start, generator, self.config.utility_fractions))
        return _log_mean_exp(torch.cat(values) / self.temperature, 0)

    def _beliefs(self, slots: Tensor, rewards: Tensor, replay: TrialReplay, inference: Foresight, learner: SoftActorCritic) -> Tensor:
        with_deviation = learner.config.belief_input == "mean_and_deviation"
        return hindsight_beliefs(inference, replay, slots, rewards, self.config.context, with_deviation)

    def collected_in_every_task(self, replay: TrialReplay, count: int, generator: torch.Generator) -> Tensor:
        """`(P, count)` slots of trials as they were collected in each task, no copies; of any task where one was not visited yet."""
        originals = ~replay.data["copy"][: replay.size]
        if not originals.any():  # a ring so small that copies pushed out what they were made of
            originals = torch.ones_like(originals)
        return self._members(replay, count, generator, among=originals)

    def _own_rewards(self, slots: Tensor, replay: TrialReplay) -> Tensor:
        """Rewards `(P, steps)` of one trial for each task, at `slots` `(P,)`, under that task; zero behind the end."""
        data, task = replay.data, torch.arange(len(self.hindsight.tasks), device=slots.device)
        in_force = self.hindsight.tasks.unsqueeze(1)
        if "task_sequence" in data:
            in_force = self.hindsight.tasks[self.hindsight.beginning_with(task, data["task_sequence"][slots], data["task_index"][slots])]
        return self.hindsight.reward(data["outcome"][slots], in_force).float() * replay.lived(slots)

    def _members(self, replay: TrialReplay, count: int, generator: torch.Generator, among: Tensor) -> Tensor:
        """`(P, count)` slots of every task's trials `among` `(size,)` bool, with replacement; of any task's where one has none."""
        places = among.nonzero().squeeze(-1)
        owner = replay.data["task_index"][places]
        order = places[torch.argsort(owner, stable=True)]
        amount = torch.bincount(owner, minlength=len(self.hindsight.tasks))
        first = amount.cumsum(0) - amount
        uniform = torch.rand((len(amount), count), generator=generator, device=owner.device)
        within = (uniform * amount.unsqueeze(-1)).long().clamp(max=(amount - 1).clamp(min=0).unsqueeze(-1).expand(-1, count))
        anywhere = (uniform * len(places)).long().clamp(max=len(places) - 1)
        place = torch.where(amount.unsqueeze(-1) > 0, first.unsqueeze(-1) + within, anywhere)
        return order[place]

    def _sharing(self, replay: TrialReplay, inference: Foresight, learner: SoftActorCritic) -> int:
        """How many trials share a draw of actions and fractions: as many as would fill `DRAW_BYTES` in a single pass."""
        widest = max(learner.config.hidden)
        quantiles = 2 * (self.config.utility_fractions or learner.config.fraction_count) if learner.quantile else 2
        scoring = self.config.utility_batch * quantiles * widest
        encoding = replay.steps * inference.widest
        return max(1, DRAW_BYTES // (4 * len(self.hindsight.tasks) * max(scoring, encoding)))


def _log_mean_exp(values: Tensor, dim: int) -> Tensor:
    return torch.logsumexp(values, dim) - math.log(values.shape[dim])


def _show(copies: dict[str, Tensor], in_force: Tensor) -> None:
    """Write the tasks in force `(n, 1 or steps, task_dim)` to where observations show them: each step's own, then the next step's."""
    steps = copies["reward"].shape[1]
    here = in_force.expand(-1, steps, -1)
    following = torch.cat([here[:, 1:], here[:, -1:]], 1)
    going_on = torch.cat([copies["episode"][:, 1:] == copies["episode"][:, :-1], copies["episode"][:, -1:] < 0], 1)
    show_tasks(copies["observation"], copies["next_observation"], here, torch.where(going_on.unsqueeze(-1), following, here))


def show_tasks(observation: Tensor, next_observation: Tensor, task: Tensor, next_task: Tensor | None = None) -> None:
    """Write tasks `(..., task_dim)` to where observations show them, at their end; the next one is the same unless `next_task` says."""
    observation[..., -task.shape[-1] :] = task
    next_observation[..., -task.shape[-1] :] = task if next_task is None else next_task
