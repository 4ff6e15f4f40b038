"""Vectorised roll-outs: one agent, many tasks side by side, K consecutive episodes in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmrlad_bench.agents.interface import Agent, ChangingTrials, Transition, Trials
from dmrlad_bench.agents.turns import turn
from dmrlad_bench.envs.family import TaskFamily

SEED_BOUND = 2**31


@dataclass(frozen=True)
class RollOut:
    """What a roll-out gave.

    Attributes:
        returns: `(trials, episodes)` sum of rewards of each episode.
        success: `(trials, episodes)` bool, by the family's success rule.
        lengths: `(trials, episodes)` steps lived in each episode.
        trials: the transitions themselves, or None where they were not asked for.
    """

    returns: np.ndarray
    success: np.ndarray
    lengths: np.ndarray
    trials: Trials | None

    @property
    def steps(self) -> int:
        """Environment steps lived in all episodes together."""
        return int(self.lengths.sum())


class Environments:
    """The vector environments of one family, made when first needed and kept: one for each split and width.

    Args:
        family: whose.
        task_observable: whether observations end with the task.
        threads: of the simulation; None = as many as there are cores allowed.
        shown_while_training: the same for trials that are learnt from; None = as `task_observable`.
    """

    def __init__(self, family: TaskFamily, task_observable: bool, threads: int | None, shown_while_training: bool | None = None) -> None:
        self.family = family
        self.task_observable = task_observable
        self.shown_while_training = task_observable if shown_while_training is None else shown_while_training
        self.threads = threads
        self._made: dict[tuple[str, int, bool], Any] = {}

    def shown(self, training: bool) -> bool:
        """Whether observations end with the task."""
        return self.shown_while_training if training else self.task_observable

    def get(self, split: str, num_envs: int, training: bool = False) -> Any:
        """The vector environment of `num_envs` tasks of `split`."""
        key = (split, num_envs, self.shown(training))
        if key not in self._made:
            self._made[key] = self.family.make_vec(num_envs, split=split, task_observable=key[2], threads=self.threads)
        return self._made[key]

    def close(self) -> None:
        """Close every environment; may be called twice."""
        for environment in self._made.values():
            environment.close()
        self._made.clear()


def roll_out(
    environments: Environments,
    agent: Agent,
    split: str,
    task_index: np.ndarray,
    *,
    episodes: int,
    generator: np.random.Generator,
    deterministic: bool,
    training_iteration: int | None = None,
    keep: bool = False,
    told: Callable[[int], object] | None = None,
) -> RollOut:
    """Run one trial of `episodes` consecutive episodes in each of the tasks, all side by side, or as many as the family allows.

    Args:
        environments: where to run.
        agent: who acts; its belief is carried over the episodes of a trial.
        split: the task list that `task_index` points into.
        task_index: `(trials,)` int, a task for each environment; may repeat.
        episodes: consecutive episodes in a task.
        generator: source of the environments' reset seeds.
        deterministic: whether the agent acts without noise.
        training_iteration: number of the training iteration, where the data will be learnt from.
        keep: whether the transitions are returned.
        told: called after every step of all environments with how many of them lived it.
    """
    family, num_envs = environments.family, len(task_index)
    if family.widest is not None and num_envs > family.widest:
        groups = [task_index[first : first + family.widest] for first in range(0, num_envs, family.widest)]
        options = {"episodes": episodes, "generator": generator, "deterministic": deterministic}
        options |= {"training_iteration": training_iteration, "keep": keep, "told": told}
        return _joined([roll_out(environments, agent, split, group, **options) for group in groups])
    training = training_iteration is not None
    environment = environments.get(split, num_envs, training)
    kind = _ChangingRecorder if family.tasks_change else _Recorder
    recorder = kind(family, num_envs, episodes, environments.shown(training)) if keep else None
    returns = np.zeros((num_envs, episodes))
    success = np.zeros((num_envs, episodes), dtype=bool)
    lengths = np.zeros((num_envs, episodes), dtype=np.int64)
    if training_iteration is not None and hasattr(agent, "begin_training_trial"):
        agent.begin_training_trial(num_envs, training_iteration)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        agent.begin_trial(num_envs)
    begin_episode = getattr(agent, "begin_episode", None)
    privileged = getattr(agent, "track", "standard") == "privileged"
    observe_outcome = getattr(agent, "observe_outcome", None) if privileged else None
    for episode in range(episodes):
        seeds = generator.integers(SEED_BOUND, size=num_envs).tolist()
        observation, _ = environment.reset(seed=seeds, options={"task": task_index})
        if begin_episode is not None:
            begin_episode()
        active = np.ones(num_envs, dtype=bool)
        flags = np.zeros((num_envs, family.horizon), dtype=bool)
        for step in range(family.horizon):
            with turn():
                action = agent.act(observation.copy(), deterministic)
            next_observation, reward, terminated, truncated, info = environment.step(action)
            # The agent may write to what it is given: copies of what is read again, and what is read by nobody after the next lines.
            transition = Transition(observation.copy(), action, reward, next_observation.copy(), terminated, truncated, active)
            if recorder is not None:
                recorder.add(transition, info, episode)
            returns[:, episode] += np.where(active, reward, 0.0)
            flags[:, step] = info["success"] & active
            lengths[:, episode] += active
            if told is not None:
                told(int(active.sum()))
            active = active & ~(terminated | truncated)
            with turn():
                if observe_outcome is not None:
                    observe_outcome(info["outcome"].copy())
                agent.observe(transition)
            observation = next_observation
            if not active.any():
                break
        success[:, episode] = family.episode_success(flags, lengths[:, episode])
    trials = None if recorder is None else recorder.trials(task_index)
    return RollOut(returns, success, lengths, trials)


def _joined(parts: list[RollOut]) -> RollOut:
    """Roll-outs one after another as one."""

    def join(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)

    trials = [part.trials for part in parts if part.trials is not None]
    whole = type(trials[0])(**{key: join([vars(part)[key] for part in trials]) for key in vars(trials[0])}) if trials else None
    returns, success, lengths = (join([getattr(part, key) for part in parts]) for key in ("returns", "success", "lengths"))
    return RollOut(returns, success, lengths, whole)


class _Recorder:
    """Writes transitions of environments side by side into gapless trials."""

    def __init__(self, family: TaskFamily, num_envs: int, episodes: int, task_observable: bool) -> None:
        shape = (num_envs, episodes * family.horizon)
        observation_dim = family.observation_dim + (family.task_dim if task_observable else 0)
        self.observation = np.zeros((*shape, observation_dim), dtype=np.float32)
        self.next_observation = np.zeros_like(self.observation)
        self.action = np.zeros((*shape, family.action_dim), dtype=np.float32)
        self.reward = np.zeros(shape, dtype=np.float32)
        self.terminated = np.zeros(shape, dtype=bool)
        self.outcome = np.zeros((*shape, family.outcome_dim), dtype=np.float32)
        self.episode = np.zeros(shape, dtype=np.int64)
        self.length = np.zeros(num_envs, dtype=np.int64)

    def add(self, transition: Transition, info: dict[str, np.ndarray], episode: int) -> None:
        rows = np.flatnonzero(transition.active)
        at = (rows, self.length[rows])
        self.observation[at] = transition.observation[rows]
        self.next_observation[at] = transition.next_observation[rows]
        self.action[at] = transition.action[rows]
        self.reward[at] = transition.reward[rows]
        self.terminated[at] = transition.terminated[rows]
        self.outcome[at] = info["outcome"][rows]
        self.episode[at] = episode
        self.length[rows] += 1

    def trials(self, task_index: np.ndarray) -> Trials:
        return Trials(
            observation=self.observation,
            next_observation=self.next_observation,
            action=self.action,
            reward=self.reward,
            terminated=self.terminated,
            outcome=self.outcome,
            episode=self.episode,
            task_index=np.array(task_index, dtype=np.int64),
            length=self.length,
        )


class _ChangingRecorder(_Recorder):
    """Also writes which training task was in force at each step."""

    def __init__(self, family: TaskFamily, num_envs: int, episodes: int, task_observable: bool) -> None:
        super().__init__(family, num_envs, episodes, task_observable)
        self._tasks = family.tasks("train").astype(np.float32)
        self.task = np.zeros((*self.reward.shape, family.task_dim), dtype=np.float32)

    def add(self, transition: Transition, info: dict[str, np.ndarray], episode: int) -> None:
        rows = np.flatnonzero(transition.active)
        self.task[rows, self.length[rows]] = info["task"][rows]
        super().add(transition, info, episode)

    def trials(self, task_index: np.ndarray) -> ChangingTrials:
        recorded = super().trials(task_index)
        sequence = [(task[:, None] == self._tasks).all(axis=-1).argmax(axis=-1) for task in self.task]  # behind the end: any
        return ChangingTrials(**vars(recorded), task_sequence=np.array(sequence, dtype=np.int64))
