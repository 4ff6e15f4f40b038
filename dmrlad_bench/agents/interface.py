"""What passes between an agent and whoever drives it: the problem, transitions, trials, and the agent protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

Metrics = dict[str, float]


class Diverged(RuntimeError):
    """A loss became NaN or infinite; the message names the loss and the update."""


class Phases(dict[str, float]):
    """Wall seconds of each phase so far; whoever listens is told when one begins, and how many of its updates are done."""

    told: Callable[[str], object] | None = None
    advanced: Callable[[int, int], object] | None = None

    def advance(self, done: int, updates: int) -> None:
        """So many of at most so many updates of the phase under way are done."""
        if self.advanced is not None:
            self.advanced(done, updates)


@dataclass(frozen=True)
class Problem:
    """What a learner may know of a task family: sizes, training tasks, and the pure reward and success functions. No simulator.

    Attributes:
        observation_dim: entries of an observation (task included where the agent is shown it).
        action_dim: entries of an action; actions lie in [-1, 1].
        horizon: steps until an episode is truncated.
        episodes_per_trial: consecutive episodes in one task that make a trial.
        train_tasks: `(tasks, task_dim)` float array.
        reward: `reward(outcome, task)` for NumPy arrays or torch tensors that broadcast; `(..., outcome_dim)`,
            `(..., task_dim)` -> `(...)`.
        outcome_dim: entries of an outcome.
        reconstruction_dims: leading observation entries that task inference reconstructs.
        relabelable: whether `reward` may be applied to trajectories lived under another task.
        task_classes: `(tasks,)` base class of each training task, or None where the family has none.
        tasks_change: whether the task changes inside an episode; trials are then `ChangingTrials`.
        success: `success(outcome, task)` as `reward`, whether a step meets the task, `(...)` bool; None where nobody asks.
    """

    observation_dim: int
    action_dim: int
    horizon: int
    episodes_per_trial: int
    train_tasks: np.ndarray
    reward: Callable[[Any, Any], Any]
    outcome_dim: int
    reconstruction_dims: int
    relabelable: bool
    task_classes: np.ndarray | None = None
    tasks_change: bool = False
    success: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class Transition:
    """One step of `num_envs` environments side by side, scored before it is handed over: an agent may keep its arrays and write to them.

    Attributes:
        observation, next_observation: `(num_envs, observation_dim)`.
        action: `(num_envs, action_dim)`.
        reward: `(num_envs,)`.
        terminated, truncated: `(num_envs,)` bool.
        active: `(num_envs,)` bool; False where that environment's episode had already ended: ignore the row.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class Trials:
    """Whole trials as collected: consecutive episodes in one task, stored without gaps, padded behind `length`.

    Attributes:
        observation, next_observation: `(trials, steps, observation_dim)` float32.
        action: `(trials, steps, action_dim)` float32.
        reward: `(trials, steps)` float32.
        terminated: `(trials, steps)` bool.
        outcome: `(trials, steps, outcome_dim)` float32.
        episode: `(trials, steps)` int64, number of the episode within its trial.
        task_index: `(trials,)` int64, index into the training tasks.
        length: `(trials,)` int64, steps really lived.
    """

    observation: np.ndarray
    next_observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    outcome: np.ndarray
    episode: np.ndarray
    task_index: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.length)

    @property
    def steps(self) -> int:
        """Environment steps lived in all trials together."""
        return int(self.length.sum())


@dataclass(frozen=True)
class ChangingTrials(Trials):
    """Trials whose task changes inside an episode; `task_index` is the task that every episode of a trial begins with.

    Attributes:
        task_sequence: `(trials, steps)` int64, index of the training task in force at each step.
    """

    task_sequence: np.ndarray


@runtime_checkable
class Agent(Protocol):
    """Anything that can be scored. `learn` and the state methods are needed only to be trained and saved.

    Optional members, used where present:
        `task_observable` (bool): the agent is shown the task in its observations (the oracle's view).
        `track` (str): `standard`, the default, or `privileged`: while scored, it has more than observations, actions, rewards and ends.
        `observe_outcome(outcome)`: privileged agents only; before `observe`, with what the reward judges, `(num_envs, outcome_dim)`.
        `begin_training_trial(num_envs, iteration)`: as `begin_trial`, before a trial whose data will be learnt from.
        `begin_episode()`: the environments were reset, the task was not.
        `learn(trials: Trials) -> Metrics`: one training iteration on newly collected trials.
        `notices` (list of lines): what a user may want to know of how it learns on this machine; each is logged once.
        `state_dict()`, `load_state_dict(state)`: nested dicts and lists of tensors, arrays, numbers and strings.
    """

    def begin_trial(self, num_envs: int) -> None:
        """Forget the task: `num_envs` environments start in tasks not seen before."""

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        """Actions `(num_envs, action_dim)` in [-1, 1] for observations `(num_envs, observation_dim)`."""
        ...

    def observe(self, transition: Transition) -> None:
        """See what the last action led to."""
