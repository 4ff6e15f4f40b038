"""Wrappers that let an ordinary recurrent learner meta-learn: trials as long episodes, and RL2's observations (arXiv 1611.02779)."""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.single import DMRLADEnv

Step = tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]


class TrialWrapper(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """A trial, that is `episodes` consecutive episodes in one task, as one long episode.

    `reset` starts a trial: it draws or takes a task as the family's environment does. Where an episode of the trial ends, `step`
    resets the environment, keeps the task, and returns the first observation of the next episode. `terminated` and
    `truncated` are those of the trial's last episode, and False before it.

    `info` has, at every step, `trial_episode` (int, the episode that the step belongs to, from 0) and `episode_over` (bool, whether
    it was the episode's last); where another episode follows, `final_obs` is what the ended one would have returned.
    `append_flag=True` appends `episode_over` to the observation as 0 or 1, for learners that see nothing else;
    `RL2Observation` has it already.

    `reset(seed=...)` fixes the task and the initial states of all episodes of the trial, whatever ran before.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray], episodes: int = 3, append_flag: bool = False) -> None:
        """Raises `CardError` where `env` is not of a task family, or `episodes` not an integer of at least 1."""
        if not isinstance(env.unwrapped, DMRLADEnv):
            raise CardError(f"TrialWrapper: expected an environment of a task family, which can keep its task, got {env.unwrapped!r}")
        if isinstance(episodes, bool) or not isinstance(episodes, int | np.integer) or episodes < 1:
            raise CardError(f"TrialWrapper: episodes must be an integer of at least 1, got {episodes!r}")
        RecordConstructorArgs.__init__(self, episodes=int(episodes), append_flag=append_flag)
        super().__init__(env)
        self.episodes, self.append_flag = int(episodes), append_flag
        if append_flag:
            self.observation_space = _extended(_vector_space(env.observation_space, "TrialWrapper: observation"), [0.0], [1.0])
        self._episode: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start a trial; `options={"task": ...}` picks its task."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._episode, self._task = 0, info["task"]
        return self._flagged(observation, False), info

    def step(self, action: np.ndarray) -> Step:
        """One step of the trial; raises `ResetNeeded` before the first `reset` and after the trial's end."""
        if self._episode is None:
            raise ResetNeeded("TrialWrapper: no trial under way; call reset before step")
        observation, reward, terminated, truncated, info = self.env.step(action)
        over = bool(terminated or truncated)
        info = {**info, "trial_episode": self._episode, "episode_over": over}
        if not over:
            return self._flagged(observation, False), reward, False, False, info
        if self._episode + 1 == self.episodes:
            self._episode = None
            return self._flagged(observation, True), reward, terminated, truncated, info
        self._episode += 1
        info["final_obs"] = observation
        observation, _ = self.env.reset(options={"task": self._task})
        return self._flagged(observation, True), reward, False, False, info

    def _flagged(self, observation: np.ndarray, over: bool) -> np.ndarray:
        return np.append(observation, np.asarray(over, observation.dtype)) if self.append_flag else observation


class RL2Observation(gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray], RecordConstructorArgs):
    """Appends to each observation the action, the reward and the done flag of the step before; zeros after `reset`.

    The flag is 1 where the step before ended an episode: by `terminated`, `truncated`, or the `episode_over` in `info` that
    `TrialWrapper` gives. `RL2Observation(TrialWrapper(env, episodes=3))` is what RL2 learns from: its memory sees the
    episodes of a trial go by, and starts blank with the next trial, since that begins with a `reset`.

    Observations keep their dtype; the action is appended as clipped to the action space.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray]) -> None:
        """Raises `CardError` where observations or actions are not vectors of numbers."""
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._seen = _vector_space(env.observation_space, "RL2Observation: observation")
        self._done = _vector_space(env.action_space, "RL2Observation: action")
        nothing = np.zeros(self._done.shape)
        low, high = np.minimum(self._done.low, nothing), np.maximum(self._done.high, nothing)  # a trial's first step has zeros
        self.observation_space = _extended(self._seen, [*low, -np.inf, 0.0], [*high, np.inf, 1.0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As the wrapped environment's, with zeros appended."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._joined(observation, np.zeros(self._done.shape), 0.0, False), info

    def step(self, action: np.ndarray) -> Step:
        """As the wrapped environment's, with this step's action, reward and done flag appended."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        over = bool(terminated or truncated or info.get("episode_over", False))
        clipped = np.clip(np.asarray(action, dtype=np.float64), self._done.low, self._done.high)
        return self._joined(observation, clipped, float(reward), over), reward, terminated, truncated, info

    def _joined(self, observation: np.ndarray, action: np.ndarray, reward: float, over: bool) -> np.ndarray:
        return np.concatenate((observation, action, [reward, float(over)])).astype(self._seen.dtype)


def _vector_space(space: gymnasium.Space[Any], what: str) -> Box:
    if not isinstance(space, Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise CardError(f"{what} space must be a one-dimensional Box of floats, got {space}")
    return space


def _extended(space: Box, low: list[float], high: list[float]) -> Box:
    """The space with further entries behind, of the same dtype."""
    lowest, highest = np.append(space.low, low), np.append(space.high, high)
    return Box(lowest.astype(space.dtype), highest.astype(space.dtype), dtype=space.dtype.type)
