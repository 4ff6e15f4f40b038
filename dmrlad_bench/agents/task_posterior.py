"""Thompson sampling over the training tasks with a learnt reward model: what not being handed the reward function costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dmrlad_bench.agents.crossing import Crossing
from dmrlad_bench.agents.interface import Metrics, Problem, Transition, Trials
from dmrlad_bench.agents.learning import averaged_updates, seeded_generator, timed_phase
from dmrlad_bench.agents.posterior_agent import PosteriorAgent
from dmrlad_bench.agents.relabel import Hindsight
from dmrlad_bench.agents.replay_agent import Part
from dmrlad_bench.agents.reward_model import JudgedSteps, RewardModel, judged_steps
from dmrlad_bench.cards.agent_config import AgentConfig


class TaskPosterior(PosteriorAgent):
    """Standard track: a scored one has observations, actions, rewards and ends, and what training left in it.

    That is a task-conditioned policy, the list of training tasks, and a model of the reward of (o, a, o', task), trained on the replay
    with hindsight rewards under any training task. The model's mean squared error is s^2 of the posterior (`TasksPosterior`).
    """

    def __init__(self, config: AgentConfig, problem: Problem, seed: np.random.SeedSequence, device: str) -> None:
        super().__init__(config, problem, seed, device)
        assert config.reward_model is not None and problem.success is not None  # the card's validation and the harness saw to it
        initial, stream = seed.spawn(2)  # behind those of the policy's training, which goes as the oracle's
        self.model_generator = seeded_generator(stream, self.device)
        tasks = torch.as_tensor(problem.train_tasks, dtype=torch.float32, device=self.device)
        sizes = problem.observation_dim - tasks.shape[1], problem.action_dim, tasks.shape[1]
        self.model = RewardModel(config.reward_model, sizes, seeded_generator(initial, self.device))
        self.hindsight = Hindsight(tasks, problem.reward)

    @property
    def deviation(self) -> float:
        return self.model.deviation

    @property
    def gradient_updates(self) -> int:
        """Policy updates and those of the reward model so far."""
        return self.learner.updates + self.model.updates

    def parts(self) -> dict[str, Part | None]:
        return super().parts() | {"reward_model": self.model}

    @torch.no_grad()
    def predicted(self, transition: Transition) -> np.ndarray:
        arrays = transition.observation, transition.action, transition.next_observation, transition.reward
        observation, action, following, reward = (
            torch.as_tensor(array, dtype=torch.float32, device=self.device).unsqueeze(1) for array in arrays
        )
        steps = JudgedSteps(observation, action, following, self.hindsight.tasks.unsqueeze(0), reward)
        return self.model.predict(steps, self.replay.statistics).double().cpu().numpy()

    def learn(self, trials: Trials) -> Metrics:
        """The oracle's iteration, then the reward model's."""
        metrics = super().learn(trials)
        config, problem = self.model.config, self.problem
        assert problem.success is not None
        with timed_phase(self.phase_seconds, "reconstruct", self.device):
            crossing = Crossing(self.hindsight, problem.success, self.replay, True, self.model_generator)

            def update() -> dict[str, torch.Tensor]:
                steps = judged_steps(crossing, self.replay, config.batch_size, self.model_generator)
                return self.model.update(steps, self.replay.statistics)

            metrics |= averaged_updates(update, config.updates, self.model, self.phase_seconds, kind="reward model")
        return metrics | {"reward_deviation": self.model.deviation, "reconstruction_updates": float(config.updates)}

    def state_dict(self) -> dict[str, Any]:
        """As the oracle's, with the reward model."""
        return super().state_dict() | {"model_generator": self.model_generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        super().load_state_dict(state)
        if state["model_generator"].shape == self.model_generator.get_state().shape:  # another device's means nothing here
            self.model_generator.set_state(state["model_generator"])
