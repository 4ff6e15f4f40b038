"""CEMRL, DMRLAD and every ablation: task inference, actor-critic, relabelling and replay, composed as the card says.

One training iteration (`learn`) is: store, relabel, reconstruct, re-infer, improve.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.actor_critic import Batch, SoftActorCritic
from dmrlad_bench.agents.belief import Belief
from dmrlad_bench.agents.encoder import OnlineContext
from dmrlad_bench.agents.graphs import GraphedUpdate, in_blocks
from dmrlad_bench.agents.inference import Segments, TaskInference
from dmrlad_bench.agents.interface import Metrics, Problem, Transition, Trials
from dmrlad_bench.agents.learning import averaged_updates, timed_phase
from dmrlad_bench.agents.networks import ALIGNMENT
from dmrlad_bench.agents.relabel import Hindsight, Relabeller
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.replay_agent import Part, ReplayAgent
from dmrlad_bench.agents.step_relabelling import StepRelabelling
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.agent_config import AgentConfig

REINFER_ROWS = {"cpu": 4096, "cuda": 2**19}  # steps that are re-inferred at a time: what that needs beside the replay
REINFER_BLOCK = {"cpu": 100_000, "cuda": 2**19}  # they are counted anew in every block of so many, so that rounding stays what it was
VALIDATION_TARGETS = 4096


class Cemrl(ReplayAgent):
    """The agent: `inference` (or none), `learner`, `relabeller` (or none) and `replay`."""

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        super().__init__(config, problem, seed, device)
        generator = self.initial_generator
        self.with_deviation = config.actor_critic.belief_input == "mean_and_deviation"
        belief_dim = 0
        self.inference: TaskInference | None = None
        if config.inference.kind != "none":
            dims = problem.reconstruction_dims
            labels = problem.task_classes
            if config.inference.class_labels and labels is not None and int(np.max(labels)) >= config.inference.classes:
                raise CardError(
                    f"inference.classes = {config.inference.classes}, but the family has {int(np.max(labels)) + 1} base classes"
                )
            self.inference = TaskInference(config.inference, problem.observation_dim, problem.action_dim, dims, generator)
            belief_dim = config.inference.latent_dim * (2 if self.with_deviation else 1)
        state_dim = problem.observation_dim + belief_dim
        self.learner = SoftActorCritic(config.actor_critic, state_dim, belief_dim, problem.action_dim, generator)
        self.replay = TrialReplay(problem, config.schedule.replay_trials, belief_dim, self.device)
        self.relabeller: Relabeller | None = None
        if config.relabel.kind != "none" and problem.relabelable:
            tasks = torch.as_tensor(problem.train_tasks, dtype=torch.float32, device=self.device)
            self.relabeller = Relabeller(config.relabel, Hindsight(tasks, problem.reward), task_observable=config.shown_while_training)
        self.by_step = StepRelabelling.of(config, problem, self.relabeller)
        self.graphed: dict[str, GraphedUpdate[Any]] = {}
        if self.device.type == "cuda":
            self.graphed["policy updates"] = self.learner.use_graph(self.generator)
            if self.inference is not None:
                self.graphed["reconstruction updates"] = self.inference.use_graph(self.generator)
        self.hypotheses = torch.zeros((0, belief_dim), device=self.device)
        self.begin_trial(1)

    @property
    def notices(self) -> list[str]:
        """What a user may want to know of how this agent learns on this machine, once it is known."""
        return [f"{what} are not replayed from a CUDA graph: {graphed.reason}" for what, graphed in self.graphed.items() if graphed.reason]

    @property
    def gradient_updates(self) -> int:
        """Reconstruction and policy updates so far."""
        return self.learner.updates + (self.inference.updates if self.inference else 0)

    def parts(self) -> dict[str, Part | None]:
        return {"inference": self.inference, "learner": self.learner}

    # ---- acting -------------------------------------------------------------------------------------------------------

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials from the prior; in the first `test_episodes`, hypotheses are tried where there are any."""
        super().begin_trial(num_envs)
        exploration = self.config.exploration
        self._episode, self._exploring, self._interval = -1, exploration.test_episodes, exploration.test_interval
        known = len(self.hypotheses) > 0
        self._choices = self.hypotheses if known else None
        self._sampled = self._from_stored = torch.full((num_envs,), known, device=self.device)
        self._context = OnlineContext(self.inference.encoder, self.inference.transition_dim, num_envs) if self.inference else None

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        """As `begin_trial`, with the training's exploration; `iteration` counts from 1."""
        super().begin_training_trial(num_envs, iteration)
        exploration = self.config.exploration
        shares = exploration.sampled_share, exploration.sampled_share + exploration.stored_share
        self._exploring, self._interval = 0, exploration.resample_interval
        if self._context is not None and shares[1] > 0:
            self._exploring = self.problem.episodes_per_trial
            uniform = torch.as_tensor(self.numpy_generator.random(num_envs), device=self.device)
            self._sampled = uniform < shares[1]
            self._from_stored = uniform >= shares[0]
            self._choices = self.replay.best_final_beliefs() if exploration.stored_share > 0 and self.replay.size > 0 else None

    def begin_episode(self) -> None:
        """The environments were reset; the task, and so the context, stays."""
        self._steps = 0
        self._episode += 1
        super().begin_episode()

    @torch.no_grad()
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations `(num_envs, observation_dim)` under the current beliefs."""
        state = torch.as_tensor(observation, dtype=torch.float32, device=self.device)
        if self._context is not None:
            state = torch.cat([state, self._acting_belief()], -1)
        action = self.learner.act(state, self.generator, deterministic, self.policy_noise())
        return self.with_noise(action)

    def _acting_belief(self) -> Tensor:
        assert self._context is not None
        belief = self._context.belief()
        if max(self._episode, 0) >= self._exploring:
            return belief.point(self.with_deviation)
        if self._steps == 0 or (self._interval and self._steps % self._interval == 0):
            self._held = self._sample(belief)
        self._steps += 1
        return torch.where(self._sampled.unsqueeze(-1), self._held, belief.point(self.with_deviation))

    def _sample(self, belief: Belief) -> Tensor:
        drawn = belief.sample(self.generator, self.with_deviation)
        if self._choices is None:
            return drawn
        chosen = torch.randint(len(self._choices), belief.classes.shape[:1], generator=self.generator, device=self.device)
        return torch.where(self._from_stored.unsqueeze(-1), self._choices[chosen], drawn)

    def observe(self, transition: Transition) -> None:
        """Add the transition to the context of every trial still running."""
        if self._context is None:
            return
        self._context.add(*self.seen(transition))

    # ---- learning -----------------------------------------------------------------------------------------------------

    def learn(self, trials: Trials) -> Metrics:
        """One training iteration on newly collected trials.

        Raises:
            Diverged: a loss is not finite.
        """
        metrics: Metrics = {}
        self.learner.schedule(self.progress)
        if self.inference is not None:
            self.inference.schedule(self.progress)
        with timed_phase(self.phase_seconds, "relabel", self.device):
            metrics.update(self._store(trials))
            if self.by_step is not None:
                metrics.update(self.by_step.look(self.replay, self.generator))
        if self.inference is not None:
            with timed_phase(self.phase_seconds, "reconstruct", self.device):
                metrics.update(self._reconstruct(self.inference))
            with timed_phase(self.phase_seconds, "re-infer", self.device):
                self._reinfer(self.inference)
                if self.config.exploration.test_episodes > 0:
                    self.hypotheses = self.replay.best_final_beliefs()
        with timed_phase(self.phase_seconds, "improve", self.device):
            if self.by_step is not None:
                self.by_step.foresee(self.inference)
            metrics.update(self._improve())
        return metrics

    def _store(self, trials: Trials) -> Metrics:
        count = len(trials)
        held_out = np.zeros(count, dtype=bool)
        amount = int(self.config.inference.validation_share * count + self.numpy_generator.random())
        held_out[self.numpy_generator.permutation(count)[:amount]] = True
        slots = self.store(trials, held_out)
        if self.relabeller is None:
            return {}
        copies, metrics = self.relabeller.store_copies(slots, self.replay, self.inference, self.learner, self.generator)
        self._fresh = torch.cat([slots, copies])
        return metrics

    def _reconstruct(self, inference: TaskInference) -> Metrics:
        config, difference = inference.config, inference.config.state_target == "difference"

        def draw(stretches: int, held_out: bool = False) -> Segments:
            segments = self.replay.segments(stretches, config.segment, config.window, held_out, difference, self.generator)
            return segments if self.by_step is None else self.by_step.targets(segments, held_out, difference, self.generator)

        validation = draw(max(1, VALIDATION_TARGETS // config.segment), held_out=True)
        segments = in_blocks(draw, max(1, config.batch_size // config.segment), self.device)
        return inference.fit(
            lambda: next(segments), validation, self.config.schedule.reconstruction_updates, self.generator, self.phase_seconds
        )

    @torch.no_grad()
    def _reinfer(self, inference: TaskInference) -> None:
        """Recompute the belief of every stored step: one encoder pass over each, then prefix sums."""
        steps, device = self.replay.steps, self.device.type
        few = ALIGNMENT * max(1, REINFER_ROWS[device] // (ALIGNMENT * steps))
        for slots in (part for block in self.replay.trials.split(max(1, REINFER_BLOCK[device] // steps)) for part in block.split(few)):
            rows = inference.encoder.rows(self.replay.transitions(slots.unsqueeze(-1), slice(None)).squeeze(1), self.replay.lived(slots))
            self.replay.belief[slots] = inference.encoder.along(rows).point(self.with_deviation)

    def _improve(self) -> Metrics:
        config, updates = self.config.actor_critic, self.config.schedule.policy_updates
        ahead = config.bootstrap_belief == "next"

        def draw(count: int) -> Batch:
            own = self.replay.batch if self.by_step is None else self.by_step.batch
            return own(count, ahead, self.generator)

        batches = in_blocks(draw, config.batch_size, self.device)
        return averaged_updates(lambda: self.learner.update(next(batches), self.generator), updates, self.learner, self.phase_seconds)

    def state_dict(self) -> dict[str, Any]:
        """As every replay agent's, and the hypotheses, which a scored agent needs without its replay."""
        return super().state_dict() | ({"hypotheses": self.hypotheses} if self.config.exploration.test_episodes > 0 else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        self.hypotheses = state.get("hypotheses", self.hypotheses).to(self.device)

    def load_replay_shards(self, shards: Iterable[dict[str, np.ndarray]]) -> None:
        """Fill the replay again, in order, after `load_state_dict`."""
        super().load_replay_shards(shards)
        if self.inference is not None and self.replay.size:
            self._reinfer(self.inference)
