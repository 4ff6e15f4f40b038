"""What updates draw beside stored trials: crossed transitions and targets, in the card's shares."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch
from dmrlad_bench.agents.crossing import Crossing
from dmrlad_bench.agents.inference import Segments, TaskInference
from dmrlad_bench.agents.interface import Metrics, Problem
from dmrlad_bench.agents.relabel import Hindsight, Relabeller
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.cards.agent_sections import STEP_KEYS


class StepRelabelling:
    """The crossing of every iteration: `look`, then `targets` while reconstructing, `foresee`, then `batch` while improving."""

    def __init__(self, config: AgentConfig, hindsight: Hindsight, success: Callable[[Any, Any], Any]) -> None:
        self.config, self.hindsight, self.success = config.relabel, hindsight, success
        self.task_observable = config.shown_while_training
        self.with_deviation = config.actor_critic.belief_input == "mean_and_deviation"

    @staticmethod
    def of(config: AgentConfig, problem: Problem, relabeller: Relabeller | None) -> StepRelabelling | None:
        """What the card asks for, or None where it asks for nothing.

        Raises:
            CardError: the family's task changes inside an episode, so no single task judges a trial.
        """
        relabel = config.relabel
        asked = relabel.judges_steps and any(getattr(relabel, key) > 0 for key in STEP_KEYS)
        if relabeller is None or not asked:
            return None
        if problem.tasks_change:
            raise CardError(f"relabel.{', '.join(STEP_KEYS)}: must be 0 where tasks change inside an episode")
        assert problem.success is not None, "whoever drives an agent that crosses gives it the family's success function"
        return StepRelabelling(config, relabeller.hindsight, problem.success)

    def look(self, replay: TrialReplay, generator: torch.Generator) -> Metrics:
        """See what the replay holds now, new trials included; returns what to log."""
        self.replay = replay
        self.crossing = Crossing(self.hindsight, self.success, replay, self.task_observable, generator)
        return {"met_tasks": float(len(self.crossing.met))}

    def targets(self, segments: Segments, held_out: bool, difference: bool, generator: torch.Generator) -> Segments:
        """`segments`, with the card's share of targets crossed."""
        share = self.config.crossed_targets
        return self.crossing.targets(segments, share, held_out, difference, generator) if share > 0 else segments

    def foresee(self, inference: TaskInference | None) -> None:
        """Infer the beliefs that batches show, by the encoder as it is now."""
        if self.config.crossed_share > 0 and inference is not None:
            self.crossing.foresee(inference, self.config.context, self.with_deviation)

    def batch(self, count: int, next_belief: bool, generator: torch.Generator) -> Batch:
        """As `TrialReplay.batch`, with the card's share crossed, in every stretch of rows alike."""
        crossed = int(self.config.crossed_share * count) if self.crossing.possible else 0
        draws: list[tuple[int, Callable[[int], Batch]]] = [
            (count - crossed, lambda rows: self.replay.batch(rows, next_belief, generator)),
            (crossed, lambda rows: self.crossing.batch(rows, generator)),
        ]
        drawn = [(rows, draw(rows)) for rows, draw in draws if rows > 0]
        return interleaved([rows for rows, _ in drawn], [batch for _, batch in drawn])


def interleaved(rows: Sequence[int], batches: Sequence[Batch]) -> Batch:
    """One batch of all rows, those of each batch evenly spread."""
    order = _spread_evenly(tuple(rows), batches[0].reward.device)

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])[order]

    return Batch(**{name: joined(name) for name in vars(batches[0])})


@functools.lru_cache(maxsize=8)  # every draw of a run asks for the same, and a copy to a GPU would wait for it
def _spread_evenly(rows: tuple[int, ...], device: torch.device) -> Tensor:
    place = torch.cat([(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in rows])
    return torch.argsort(place, stable=True).to(device)
