"""RL2: nothing but memory. A recurrent soft actor-critic whose hidden state lives as long as its trial (arXiv 2110.05038).

One training iteration (`learn`) is: store, improve.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.exploration import NoiseActions, training_noise
from dmrlad_bench.agents.interface import Metrics, Problem, Transition, Trials
from dmrlad_bench.agents.learning import averaged_updates, seeded_generator, timed_phase
from dmrlad_bench.agents.recurrent import RecurrentActorCritic
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.sequences import draw_sequences, step_inputs
from dmrlad_bench.cards.agent_config import AgentConfig


class Rl2:
    """The agent: `learner` and `replay`, and in every trial under way the hidden state and the step before."""

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        self.config, self.problem, self.device = config, problem, torch.device(device)
        assert config.recurrent is not None, "the card's validation sees to it"
        self.recurrent = config.recurrent
        initial, stream, exploration = seed.spawn(3)
        self.generator = seeded_generator(stream, self.device)
        self.numpy_generator = np.random.default_rng(exploration)
        self.task_observable = config.task_observable
        generator = seeded_generator(initial, self.device)
        sizes = problem.observation_dim, problem.action_dim
        self.learner = RecurrentActorCritic(config.actor_critic, self.recurrent, *sizes, generator)
        self.replay = TrialReplay(problem, config.schedule.replay_trials, 0, self.device)
        self.phase_seconds: dict[str, float] = {}
        self._fresh: Tensor | None = None
        self.begin_trial(1)

    @property
    def gradient_updates(self) -> int:
        """Policy updates so far."""
        return self.learner.updates

    # ---- acting -------------------------------------------------------------------------------------------------------

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials with a blank memory."""
        self._noise: NoiseActions | None = None
        self.hidden = self.learner.actor.memory.blank(num_envs)
        self._action = torch.zeros(num_envs, self.problem.action_dim, device=self.device)
        self._reward = torch.zeros(num_envs, device=self.device)
        self._over = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._lived = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        """As `begin_trial`, with the exploration that the card asks for; `iteration` counts from 1."""
        self.begin_trial(num_envs)
        problem = self.problem
        self._noise = training_noise(
            self.config.exploration, num_envs, iteration, problem.action_dim, problem.horizon, self.numpy_generator
        )

    def begin_episode(self) -> None:
        """The environments were reset; the task, and so the memory, stays."""
        if self._noise is not None:
            self._noise.begin_episode()

    @torch.no_grad()
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations `(num_envs, observation_dim)`, given everything that the trials have observed."""
        seen = torch.as_tensor(observation, dtype=torch.float32, device=self.device)
        actor = self.learner.actor
        inputs = step_inputs(self.replay.statistics, seen, self._action, self._reward, self._over, self._lived)
        state = actor.memory(inputs.unsqueeze(1), self.hidden).squeeze(1)
        self._next_hidden = state[:, : actor.memory.width]  # kept by `observe` where the step is really lived
        action = actor.policy.mode(state) if deterministic else actor.policy.sample(state, self.generator)[0]
        return action.cpu().numpy() if self._noise is None else self._noise.replace(action.cpu().numpy())

    def observe(self, transition: Transition) -> None:
        """Move the memory of every trial still running past the last action; where an episode had ended, nothing moves."""
        active = torch.as_tensor(transition.active, device=self.device)
        over = torch.as_tensor(transition.terminated | transition.truncated, device=self.device)
        action, reward = (torch.as_tensor(part, dtype=torch.float32, device=self.device) for part in (transition.action, transition.reward))
        self.hidden = torch.where(active.unsqueeze(-1), self._next_hidden, self.hidden)
        self._action = torch.where(active.unsqueeze(-1), action, self._action)
        self._reward = torch.where(active, reward, self._reward)
        self._over = torch.where(active, over, self._over)
        self._lived = self._lived | active

    def fork(self, seed: np.random.SeedSequence) -> Rl2:
        """An actor that shares this agent's parameters but has generators and trials of its own."""
        actor = copy.copy(self)
        stream, exploration = seed.spawn(2)
        actor.generator = seeded_generator(stream, self.device)
        actor.numpy_generator = np.random.default_rng(exploration)
        actor.begin_trial(1)
        return actor

    # ---- learning -----------------------------------------------------------------------------------------------------

    def learn(self, trials: Trials) -> Metrics:
        """One training iteration on newly collected trials.

        Raises:
            Diverged: a loss is not finite.
        """
        nothing = np.zeros(len(trials), dtype=bool)
        fields = {**vars(trials), "held_out": nothing, "copy": nothing}
        self._fresh = self.replay.add({name: torch.as_tensor(value, device=self.device) for name, value in fields.items()})
        schedule, batch = self.config.schedule, self.config.actor_critic.batch_size
        self.learner.schedule(self.learner.updates / max(1, schedule.iterations * schedule.policy_updates))

        def update() -> dict[str, Tensor]:
            return self.learner.update(draw_sequences(self.replay, batch, self.recurrent, self.generator), self.generator)

        with timed_phase(self.phase_seconds, "improve", self.device):
            return averaged_updates(update, schedule.policy_updates, self.learner)

    # ---- saving -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, statistics and generators; stored trials travel as replay shards."""
        return {
            "learner": self.learner.state_dict(),
            "statistics": self.replay.statistics.state_dict(),
            "generator": self.generator.get_state(),
            "numpy_generator": self.numpy_generator.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.learner.load_state_dict(state["learner"])
        self.replay.statistics.load_state_dict(state["statistics"])
        if state["generator"].shape == self.generator.get_state().shape:  # another device's means nothing here
            self.generator.set_state(state["generator"])
        self.numpy_generator.bit_generator.state = state["numpy_generator"]

    def new_replay_shard(self) -> dict[str, np.ndarray] | None:
        """The trials stored by the last `learn`, for an append-only record."""
        return None if self._fresh is None else self.replay.shard(self._fresh)

    def load_replay_shards(self, shards: Iterable[dict[str, np.ndarray]]) -> None:
        """Fill the replay again, in order, after `load_state_dict`."""
        statistics = copy.deepcopy(self.replay.statistics.state_dict())
        for shard in shards:
            self.replay.add_shard(shard)
        self.replay.statistics.load_state_dict(statistics)
