"""Collection: what is lived is recorded, and rows whose episode is over are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from counting_agent import CountingAgent

from dmrlad_bench.agents.interface import Problem, Transition
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.collect import Environments, roll_out


def test_roll_out_records_what_was_lived() -> None:
    solved = family("PointGoal")
    problem = Problem(2, 2, solved.horizon, 3, solved.tasks("train"), solved.reward, solved.outcome_dim, 2, True)
    agent = CountingAgent(problem, np.random.SeedSequence(0))
    environments = Environments(solved, False, 1)
    chosen = np.array([5, 0, 5])
    rolled = roll_out(
        environments,
        agent,
        "train",
        chosen,
        episodes=2,
        generator=np.random.default_rng(0),
        deterministic=False,
        training_iteration=4,
        keep=True,
    )
    environments.close()
    trials = rolled.trials
    assert trials is not None
    assert [call for call in agent.calls if call != "observe"] == ["begin_training_trial 4", "begin_episode", "begin_episode"]
    assert trials.steps == rolled.steps == 3 * 2 * solved.horizon
    np.testing.assert_array_equal(trials.task_index, chosen)
    np.testing.assert_array_equal(trials.episode[0], np.repeat([0, 1], solved.horizon))
    np.testing.assert_allclose(trials.reward.reshape(3, 2, -1).sum(axis=2), rolled.returns, atol=1e-4)
    tasks = solved.tasks("train")[chosen][:, None]
    np.testing.assert_allclose(solved.reward(trials.outcome, tasks), trials.reward, atol=1e-6)
    within = trials.episode[:, 1:] == trials.episode[:, :-1]
    np.testing.assert_array_equal(trials.observation[:, 1:][within], trials.next_observation[:, :-1][within])
    assert not np.array_equal(trials.observation[0], trials.observation[2])  # the same task, but not the same trial


class EarlyEnd:
    """A vector environment of two rows: row 0 terminates after 1 step of the first episode and 3 of the second, row 1 never."""

    def __init__(self) -> None:
        self.episode, self.step_number = -1, 0

    def reset(self, seed: list[int], options: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.step_number = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.step_number += 1
        terminated = np.array([self.step_number >= (1, 3)[self.episode], False])
        reward = np.array([1.0, 10.0]) * self.step_number
        info = {"outcome": np.zeros((2, 1), dtype=np.float32), "success": np.array([True, True])}
        return self._observation(), reward, terminated, np.full(2, self.step_number == 4), info

    def _observation(self) -> np.ndarray:
        return np.array([[self.episode, self.step_number], [self.episode, self.step_number]], dtype=float)


def test_rows_whose_episode_ended_are_ignored() -> None:
    class Family:
        horizon, observation_dim, action_dim, outcome_dim, task_dim = 4, 2, 1, 1, 1
        tasks_change = False
        widest = None

        @staticmethod
        def episode_success(flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            return flags.sum(axis=1) == lengths

    class Early(Environments):
        def __init__(self) -> None:
            self.family: Any = Family()
            self.task_observable = False
            self.environment = EarlyEnd()

        def get(self, split: str, num_envs: int, training: bool = False) -> Any:
            return self.environment

    class Watcher:
        def __init__(self) -> None:
            self.active: list[list[bool]] = []

        def begin_trial(self, num_envs: int) -> None: ...

        def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
            return np.zeros((2, 1))

        def observe(self, transition: Transition) -> None:
            self.active.append(transition.active.tolist())

    watcher, generator = Watcher(), np.random.default_rng(0)
    rolled = roll_out(Early(), watcher, "train", np.array([0, 1]), episodes=2, generator=generator, deterministic=True, keep=True)
    np.testing.assert_array_equal(rolled.lengths, [[1, 3], [4, 4]])
    np.testing.assert_array_equal(rolled.returns, [[1.0, 6.0], [100.0, 100.0]])
    assert rolled.success.all()
    assert [active for active, _ in watcher.active] == [True, False, False, False, True, True, True, False]
    assert rolled.trials is not None
    np.testing.assert_array_equal(rolled.trials.length, [4, 8])
    np.testing.assert_array_equal(rolled.trials.reward[0], [1, 1, 2, 3, 0, 0, 0, 0])
    np.testing.assert_array_equal(rolled.trials.terminated[0], [True, False, False, True, False, False, False, False])
    np.testing.assert_array_equal(rolled.trials.episode[0, :4], [0, 1, 1, 1])
