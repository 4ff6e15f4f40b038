"""Thompson sampling with exact inference: what searching costs when nothing about rewards has to be learnt."""

from __future__ import annotations

import numpy as np

from dmrlad_bench.agents.interface import Transition
from dmrlad_bench.agents.posterior_agent import PosteriorAgent


class Thompson(PosteriorAgent):
    """Privileged: a scored one is handed outcomes, the family's reward function and the training tasks.

    The posterior over the training tasks (`TasksPosterior`) is exact but for `posterior.deviation`: predicted rewards are the family's own.
    """

    @property
    def deviation(self) -> float:
        assert self.config.posterior is not None  # the card's validation saw to it
        return self.config.posterior.deviation

    def observe_outcome(self, outcome: np.ndarray) -> None:
        """What the next transition did, `(num_envs, outcome_dim)`."""
        self._outcome = outcome

    def predicted(self, transition: Transition) -> np.ndarray:
        return np.asarray(self.problem.reward(self._outcome[:, None, :], self.tasks[None]), dtype=np.float64)
