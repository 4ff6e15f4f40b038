"""The posterior over the training tasks of trials that live side by side, and the draw that each of them acts on."""

from __future__ import annotations

import math

import numpy as np

from dmrlad_bench.cards import CardError

REFUTED = 0.01  # a task that has less than this share of the best one's weight


class TasksPosterior:
    """Which training task each of `num_envs` trials may be in, judged by the rewards received.

        p(psi | trial)  ~  exp( - E_psi / (2 s^2) ),    E_psi = sum_t (r_t - r_psi,t)^2

    r_psi,t is the reward that task psi predicts for the t-th transition, s what a prediction may be off by; before the first reward
    all tasks weigh the same. Where a training task predicts every reward, this is elimination: its E is 0, tasks that are off by more
    than s soon weigh nothing, and those that predict the same rewards weigh the same. Where none does, as for a task that is no
    training task, the least wrong ones weigh most. A held draw is *refuted* once its weight is less than `REFUTED` of the best task's.

    Args:
        num_envs: trials.
        tasks: training tasks, P.
        generator: of the draws.
    """

    def __init__(self, num_envs: int, tasks: int, generator: np.random.Generator) -> None:
        self.error = np.zeros((num_envs, tasks))
        self.held = np.zeros(num_envs, dtype=np.int64)
        self.generator = generator

    def weights(self, deviation: float) -> np.ndarray:
        """p(psi | trial), `(num_envs, P)`; `deviation` is s."""
        weights = np.exp(-self._excess() / (2 * deviation**2))
        return weights / weights.sum(axis=1, keepdims=True)

    def see(self, predicted: np.ndarray, reward: np.ndarray, active: np.ndarray) -> None:
        """Count a transition of every `active` trial: rewards predicted `(num_envs, P)` and received `(num_envs,)`."""
        self.error += np.where(active[:, None], np.square(predicted - reward[:, None]), 0.0)

    def draw(self, deviation: float) -> None:
        """Draw a task for every trial."""
        self._draw(np.ones(len(self.held), dtype=bool), deviation)

    def draw_again(self, deviation: float) -> None:
        """Draw a task for every trial whose held one is refuted."""
        held = np.take_along_axis(self._excess(), self.held[:, None], axis=1)[:, 0]
        self._draw(held > -2 * deviation**2 * math.log(REFUTED), deviation)

    def _draw(self, rows: np.ndarray, deviation: float) -> None:
        if rows.any():
            below = np.cumsum(self.weights(deviation)[rows], axis=1)
            uniform = self.generator.random((len(below), 1)) * below[:, -1:]
            self.held[rows] = (uniform >= below).sum(axis=1)

    def _excess(self) -> np.ndarray:
        return self.error - self.error.min(axis=1, keepdims=True)


def check_judgeable(name: str, family: str, relabelable: bool, tasks_change: bool) -> None:
    """Raises `CardError` where rewards do not tell which training task a trial is in, or it is not one task."""
    wanted = f"agent {name!r} judges every training task by the rewards of a whole trial"
    if tasks_change:
        raise CardError(f"{wanted}; in {family} the task changes inside an episode")
    if not relabelable:
        raise CardError(f"{wanted}; in {family} the reward of a transition does not depend on the task")
