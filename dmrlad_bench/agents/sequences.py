"""Sequences of stored trials as a recurrent learner reads them, and what its memory sees of a step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dmrlad_bench.agents.replay import Statistics, TrialReplay
from dmrlad_bench.cards.agent_sections import Recurrent


def step_inputs(statistics: Statistics, observation: Tensor, action: Tensor, reward: Tensor, over: Tensor, lived: Tensor) -> Tensor:
    """What the memory sees of a step: the observation, and the action, the reward and the done flag of the step before.

    Acting and training both use this function. Everything but the flag is normalised by the replay's statistics; of what lies
    before a trial's first step there is nothing, that is zeros.

    Args:
        statistics: of the replay.
        observation: `(..., observation_dim)`, now.
        action: `(..., action_dim)`, of the step before.
        reward: `(...)`, of the step before.
        over: `(...)` bool, whether the step before was the last of an episode of the same trial.
        lived: `(...)` bool, whether there was a step before.

    Returns:
        `(..., observation_dim + action_dim + 2)`; the normalised observation comes first.
    """
    before = torch.cat([statistics.action(action), statistics.reward(reward).unsqueeze(-1), over.unsqueeze(-1).to(action.dtype)], -1)
    return torch.cat([statistics.observation(observation), before * lived.unsqueeze(-1)], -1)


@dataclass(frozen=True)
class Sequences:
    """A batch of sequences of `length` consecutive steps, right-padded, with what comes before and after them.

    Attributes:
        inputs: `(batch, length + 1, input_dim)`; the last entry is only a successor.
        burn_in: `(batch, burn_in, input_dim)`, the steps before the sequence, oldest first, right-padded.
        burned: `(batch,)` int64, how many entries of `burn_in` exist; the memory is blank before them.
        action: `(batch, length, action_dim)`.
        reward: `(batch, length)`.
        terminated: `(batch, length)` float, 1 where bootstrapping stops: at a termination that ends the trial, for an episode that ends
            inside of it is followed by the next; with `bootstrap = "episode"`, at every termination.
        valid: `(batch, length)` bool, False on padding.
        apart: `(batch, length)` bool, where the state that follows is not the sequence's next entry.
        beyond: `(rows, input_dim)`, what the memory sees after each of the `apart` steps, in their order.
    """

    inputs: Tensor
    burn_in: Tensor
    burned: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    valid: Tensor
    apart: Tensor
    beyond: Tensor


def draw_sequences(replay: TrialReplay, count: int, config: Recurrent, generator: torch.Generator) -> Sequences:
    """`count` whole trials, or sequences of `config.sequence` steps; every stored step is equally likely to be in one.

    A sequence that would begin before its trial is cut there, so that the memory starts blank, as it does when acting.
    """
    length = min(config.sequence or replay.steps, replay.steps)
    if length == replay.steps:
        trial = torch.randint(replay.size, (count,), generator=generator, device=replay.device)
        start = torch.zeros_like(trial)
    else:
        trial, start = replay.stretches(count, length, generator)
    return read_sequences(replay, trial, start, length, config)


def read_sequences(replay: TrialReplay, trial: Tensor, start: Tensor, length: int, config: Recurrent) -> Sequences:
    """The sequences of `length` steps from step `start` `(batch,)` of the stored trials `trial` `(batch,)`; `start` may be negative."""
    data, row = replay.data, trial.unsqueeze(-1)
    begin, end = start.clamp(min=0).unsqueeze(-1), (start + length).unsqueeze(-1)
    lengths = data["length"][row]
    step = begin + torch.arange(length + 1, device=replay.device)
    valid = (step < lengths)[:, :-1] & (step[:, :-1] < end)
    where = step.clamp(max=replay.steps - 1)
    here, following = where[:, :-1], where[:, 1:]
    apart = step[:, 1:] >= lengths
    if config.bootstrap == "episode":
        apart = apart | (data["episode"][row, following] != data["episode"][row, here])
    terminated = data["terminated"][row, here]
    if config.bootstrap == "trial":
        terminated = terminated & (step[:, 1:] >= lengths)
    apart = apart & valid
    owner, last = trial.unsqueeze(-1).expand_as(here)[apart], here[apart]
    going_on = torch.zeros_like(owner, dtype=torch.bool)
    beyond = (data[name][owner, last] for name in ("next_observation", "action", "reward"))
    first = (begin - config.burn_in).clamp(min=0)
    return Sequences(
        inputs=_stored_inputs(replay, row, where),
        burn_in=_stored_inputs(replay, row, (first + torch.arange(config.burn_in, device=replay.device)).clamp(max=replay.steps - 1)),
        burned=(begin - first).squeeze(-1),
        action=data["action"][row, here],
        reward=data["reward"][row, here],
        terminated=terminated.float(),
        valid=valid,
        apart=apart,
        beyond=step_inputs(replay.statistics, *beyond, over=going_on, lived=~going_on),
    )


def _stored_inputs(replay: TrialReplay, trial: Tensor, step: Tensor) -> Tensor:
    """`step_inputs` at stored places; `trial` `(batch, 1)`, `step` `(batch, n)`."""
    data, previous = replay.data, (step - 1).clamp(min=0)
    over = data["episode"][trial, step] != data["episode"][trial, previous]
    seen = data["observation"][trial, step]
    return step_inputs(replay.statistics, seen, data["action"][trial, previous], data["reward"][trial, previous], over, step > 0)
