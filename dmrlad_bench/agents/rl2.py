"""RL2: nothing but memory. A recurrent soft actor-critic whose hidden state lives as long as its trial (arXiv 2110.05038).

One training iteration (`learn`) is: store, improve.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.interface import Metrics, Problem, Transition, Trials
from dmrlad_bench.agents.learning import averaged_updates, timed_phase
from dmrlad_bench.agents.recurrent import RecurrentActorCritic
from dmrlad_bench.agents.replay import TrialReplay
from dmrlad_bench.agents.replay_agent import ReplayAgent
from dmrlad_bench.agents.sequences import draw_sequences, step_inputs
from dmrlad_bench.cards.agent_config import AgentConfig


class Rl2(ReplayAgent):
    """The agent: `learner` and `replay`, and in every trial under way the hidden state and the step before."""

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        super().__init__(config, problem, seed, device)
        assert config.recurrent is not None, "the card's validation sees to it"
        self.recurrent = config.recurrent
        sizes = problem.observation_dim, problem.action_dim
        self.learner = RecurrentActorCritic(config.actor_critic, self.recurrent, *sizes, self.initial_generator)
        self.replay = TrialReplay(problem, config.schedule.replay_trials, 0, self.device)
        self.begin_trial(1)

    # ---- acting -------------------------------------------------------------------------------------------------------

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials with a blank memory."""
        super().begin_trial(num_envs)
        self.hidden = self.learner.actor.memory.blank(num_envs)
        self._action = torch.zeros(num_envs, self.problem.action_dim, device=self.device)
        self._reward = torch.zeros(num_envs, device=self.device)
        self._over = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._lived = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    @torch.no_grad()
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations `(num_envs, observation_dim)`, given everything that the trials have observed."""
        seen = torch.as_tensor(observation, dtype=torch.float32, device=self.device)
        actor = self.learner.actor
        inputs = step_inputs(self.replay.statistics, seen, self._action, self._reward, self._over, self._lived)
        state = actor.memory(inputs.unsqueeze(1), self.hidden).squeeze(1)
        self._next_hidden = state[:, : actor.memory.width]  # kept by `observe` where the step is really lived
        action = actor.policy.mode(state) if deterministic else actor.policy.draw(state, self.generator, self.policy_noise())
        return self.with_noise(action)

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

    # ---- learning -----------------------------------------------------------------------------------------------------

    def learn(self, trials: Trials) -> Metrics:
        """One training iteration on newly collected trials.

        Raises:
            Diverged: a loss is not finite.
        """
        self.store(trials)
        self.learner.schedule(self.progress)
        schedule, batch = self.config.schedule, self.config.actor_critic.batch_size

        def update() -> dict[str, Tensor]:
            return self.learner.update(draw_sequences(self.replay, batch, self.recurrent, self.generator), self.generator)

        with timed_phase(self.phase_seconds, "improve", self.device):
            return averaged_updates(update, schedule.policy_updates, self.learner, self.phase_seconds)
