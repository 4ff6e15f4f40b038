"""Acting by a task-conditioned policy on draws from a posterior over the training tasks."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.agents.cemrl import Cemrl
from dmrlad_bench.agents.interface import Problem, Transition
from dmrlad_bench.agents.posterior import TasksPosterior, check_judgeable
from dmrlad_bench.cards.agent_config import AgentConfig


class PosteriorAgent(Cemrl):
    """Base of `Thompson` and `TaskPosterior`: trained as the oracle is, shown the task; a scored one acts on a task that it draws.

    The draw is held until it is refuted or the episode ends, then there is another. `config.task_observable` is false, for a scored
    agent's observations do not hold the task; those of training, and `problem.observation_dim`, do.
    """

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        check_judgeable(config.name, "this family", problem.relabelable, problem.tasks_change)
        self.tasks = problem.train_tasks.astype(np.float32)  # as environments have them
        super().__init__(config, problem, seed, device)
        self.track = config.track

    @property
    def deviation(self) -> float:
        """s, what a predicted reward may be off by."""
        raise NotImplementedError

    def predicted(self, transition: Transition) -> np.ndarray:
        """The reward of a transition under every training task, `(num_envs, P)`."""
        raise NotImplementedError

    def begin_trial(self, num_envs: int) -> None:
        """Start `num_envs` trials, each in any of the training tasks as far as is known."""
        super().begin_trial(num_envs)
        self._posterior: TasksPosterior | None = TasksPosterior(num_envs, len(self.tasks), self.numpy_generator)

    def begin_training_trial(self, num_envs: int, iteration: int) -> None:
        """Start `num_envs` trials in which observations show the task."""
        super().begin_training_trial(num_envs, iteration)
        self._posterior = None

    def begin_episode(self) -> None:
        """The environments were reset: draw anew."""
        super().begin_episode()
        if self._posterior is not None:
            self._posterior.draw(self.deviation)

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions for observations, followed by the task only in training; else by the one that is held."""
        if self._posterior is not None:
            observation = np.concatenate([observation, self.tasks[self._posterior.held]], axis=1)
        return super().act(observation, deterministic)

    def observe(self, transition: Transition) -> None:
        """Judge the training tasks by the reward, and draw again where the held one is refuted."""
        if self._posterior is not None:
            self._posterior.see(self.predicted(transition), transition.reward, transition.active)
            self._posterior.draw_again(self.deviation)
