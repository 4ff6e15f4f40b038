"""Nothing that an agent does with what it is given changes scores or what is recorded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from counting_runs import planned

from dmrlad_bench.agents.interface import Problem, Transition, Trials
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.agent import make_agent
from dmrlad_bench.harness.api import evaluate, train
from dmrlad_bench.harness.collect import Environments, roll_out
from dmrlad_bench.harness.progress import RunProgress
from dmrlad_bench.harness.session import Session
from dmrlad_bench.harness.threads import Threads

FAMILIES = ("PointGoal", "CheetahDirNonStationary")


class Honest:
    """Random actions in an array of its own, kept and used again; touches nothing that it is given."""

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def begin_trial(self, num_envs: int) -> None:
        self.generator = np.random.default_rng(3)
        self.action = np.zeros((num_envs, self.action_dim))

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        self.action = self.generator.uniform(-1, 1, self.action.shape)
        return self.action

    def observe(self, transition: Transition) -> None: ...


def spoil(array: np.ndarray) -> None:
    """Write nonsense into an array and into whatever it is a view of, whether that is allowed or not."""
    while isinstance(array, np.ndarray):
        array.setflags(write=True)
        array[...] = ~array if array.dtype == bool else 1e3
        array = array.base  # pyright: ignore[reportAssignmentType]


class ClipsReward(Honest):
    def observe(self, transition: Transition) -> None:
        np.clip(transition.reward, -0.1, 0.1, out=transition.reward)


class SpoilsTransitions(Honest):
    def observe(self, transition: Transition) -> None:
        for field in fields(Transition):
            spoil(getattr(transition, field.name))


class SpoilsObservations(Honest):
    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        spoil(observation)
        return super().act(observation, deterministic)


class SpoilsItsAction(Honest):
    def observe(self, transition: Transition) -> None:
        spoil(self.action)


class SpoilsLater(Honest):
    """Keeps everything, and spoils it in the next step."""

    def begin_trial(self, num_envs: int) -> None:
        super().begin_trial(num_envs)
        self.kept: list[np.ndarray] = []

    def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        for array in self.kept:
            spoil(array)
        self.kept = [observation]
        action = super().act(observation, deterministic)
        self.kept.append(action)
        return action

    def observe(self, transition: Transition) -> None:
        self.kept += vars(transition).values()


def lived(name: str, agent: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A roll-out of two episodes in four tasks of another order, and its recorded trials."""
    solved = family(name)
    environments = Environments(solved, False, 1)
    tasks = np.array([3, 1, 2, 1]) % len(solved.tasks("train"))
    generator = np.random.default_rng(0)
    try:
        rolled = roll_out(environments, agent, "train", tasks, episodes=2, generator=generator, deterministic=False, keep=True)
    finally:
        environments.close()
    assert rolled.trials is not None
    return rolled, vars(rolled.trials)


@pytest.mark.parametrize("kind", [ClipsReward, SpoilsTransitions, SpoilsObservations, SpoilsItsAction, SpoilsLater])
@pytest.mark.parametrize("name", FAMILIES)
def test_scores_and_recorded_trials_stay_right(name: str, kind: type[Honest]) -> None:
    action_dim = family(name).action_dim
    (honest, recorded), (spoiled, spoiled_record) = lived(name, Honest(action_dim)), lived(name, kind(action_dim))
    for part in ("returns", "success", "lengths"):
        np.testing.assert_array_equal(getattr(spoiled, part), getattr(honest, part))
    assert set(recorded) == set(spoiled_record)
    for key, array in recorded.items():
        np.testing.assert_array_equal(spoiled_record[key], array, err_msg=key)


def test_an_observation_returned_as_the_action() -> None:
    """On PointGoal both have two entries: the very array comes back, and is written to afterwards."""

    class Echo(Honest):
        def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
            return observation

        def observe(self, transition: Transition) -> None:
            transition.action[...] = 7.0

    class CopiedEcho(Honest):
        def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
            return observation.copy()

    (echoed, recorded), (copied, expected) = lived("PointGoal", Echo(2)), lived("PointGoal", CopiedEcho(2))
    np.testing.assert_array_equal(echoed.returns, copied.returns)
    for key, array in expected.items():
        np.testing.assert_array_equal(recorded[key], array, err_msg=key)


def test_what_an_agent_is_given_is_its_to_keep() -> None:
    """A list of transitions holds what was, though nobody copied them: no array is used again."""
    kept: list[Transition] = []

    class Keeps(Honest):
        def observe(self, transition: Transition) -> None:
            kept.append(transition)

    _, recorded = lived("PointGoal", Keeps(2))
    horizon = family("PointGoal").horizon
    for number, transition in enumerate(kept[:horizon]):
        np.testing.assert_array_equal(transition.next_observation.astype(np.float32), recorded["next_observation"][:, number])
        np.testing.assert_array_equal(transition.reward.astype(np.float32), recorded["reward"][:, number])


def test_evaluate_scores_what_was_lived() -> None:
    expected = evaluate(Honest(2), "PointGoal", episodes=1, threads=1)  # pyright: ignore[reportArgumentType]
    for kind in (ClipsReward, SpoilsTransitions, SpoilsLater):
        np.testing.assert_array_equal(evaluate(kind(2), "PointGoal", episodes=1, threads=1).returns, expected.returns)  # pyright: ignore[reportArgumentType]


def problem_of(monkeypatch: pytest.MonkeyPatch, solved: Any) -> Problem:
    """The problem that an agent on this family is built with."""
    built: list[Problem] = []
    monkeypatch.setattr("dmrlad_bench.agents.build.build_agent", lambda config, problem, seed, device: built.append(problem))
    make_agent(planned(Path("runs"))[0], solved)
    return built[0]


def test_the_problem_reaches_nothing_that_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = family("PointGoal")
    outcome, tasks = np.full((3, solved.outcome_dim), 0.3), solved.tasks("train")[:3]
    rewards = solved.reward(outcome, tasks)
    problem = problem_of(monkeypatch, solved)
    np.testing.assert_array_equal(problem.reward(outcome, tasks), rewards)
    judge: Any = problem.reward.__self__  # pyright: ignore[reportFunctionMemberAccess]
    assert judge.splits == ("train",)  # neither validation nor test tasks can be read
    spoil(problem.train_tasks)
    judge.judge = judge.reward = lambda *_: 0.0
    object.__setattr__(judge.card.reward, "radius", 1e6)
    np.testing.assert_array_equal(solved.tasks("train")[:3], tasks)
    np.testing.assert_array_equal(solved.reward(outcome, tasks), rewards)
    np.testing.assert_array_equal(solved.judge(outcome, tasks).reward, rewards)


def test_trials_spoiled_while_learning_are_counted_as_they_were(
    tmp_path: Path, counting: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counting()
    config, folder = planned(tmp_path)
    folder.mkdir(parents=True)
    session = Session(config, folder, ["dmrlad-bench"], Threads(1, 1))
    (agent,) = made

    learns = agent.learn
    progress = RunProgress("run", config.agent.schedule.iterations, (0, 0), quiet=True, bar=False)

    def learn(trials: Trials) -> dict[str, float]:
        metrics = learns(trials)
        for array in vars(trials).values():
            spoil(array)
        return metrics

    monkeypatch.setattr(agent, "learn", learn)
    try:
        row = session._iterate(progress)
        honest = Session(config, folder, ["dmrlad-bench"], Threads(1, 1))
        expected = honest._iterate(progress)
        honest.environments.close()
    finally:
        session.environments.close()
    for name in ("environment_steps", "charts/train_return", "charts/train_success"):
        assert row[name] == expected[name]
    assert row["charts/train_return"] < 0


@pytest.mark.parametrize("agent", ["dmrlad", "pearl", "rl2"])
def test_our_own_learners_are_handed_arrays_that_torch_takes_without_a_word(agent: str) -> None:
    from dmrlad_bench.harness.api import plan

    config, _ = plan(agent, "PointGoal", budget="smoke", device="cpu", threads=1)
    solved = family("PointGoal")
    built = make_agent(config, solved)
    environments = Environments(solved, False, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options: dict[str, Any] = {"episodes": 1, "generator": np.random.default_rng(0), "deterministic": False}
        roll_out(environments, built, "train", np.arange(2), **options, training_iteration=1, keep=True)
    environments.close()


def test_a_watched_agent_keeps_no_hold_on_its_action() -> None:
    from dmrlad_bench.agents.external import WatchedAgent

    given = np.zeros((2, 2))
    agent = SimpleNamespace(act=lambda observation, deterministic: given, begin_trial=None, observe=None)
    watched = WatchedAgent(agent, "a:B", SimpleNamespace(action_dim=2), False)  # pyright: ignore[reportArgumentType]
    action = watched.act(np.zeros((2, 2)), True)
    given[...] = np.nan
    assert (action == 0).all()


ANYONES = """
import numpy as np

class Honest:
    def __init__(self, problem, seed):
        self.problem, self.generator, self.learnt = problem, np.random.default_rng(seed), 0
        self.goal = problem.train_tasks.mean(axis=0).copy()

    def begin_trial(self, num_envs):
        self.num_envs = num_envs

    def act(self, observation, deterministic):
        self.action = np.tanh(self.goal - observation) + 0.1 * self.learnt
        return self.action

    def observe(self, transition):
        pass

    def learn(self, trials):
        self.learnt += float(trials.reward.mean() > -1)
        return {"reward": trials.reward.mean()}

    def fork(self, seed):
        return self

    def state_dict(self):
        return {"learnt": self.learnt}

    def load_state_dict(self, state):
        self.learnt = state["learnt"]

def spoil(array):
    while isinstance(array, np.ndarray):
        array.setflags(write=True)
        array[...] = 1
        array = array.base

class Spoiling(Honest):
    def __init__(self, problem, seed):
        super().__init__(problem, seed)
        spoil(problem.train_tasks)
        problem.reward.__self__.judge = problem.reward.__self__.success = None

    def act(self, observation, deterministic):
        action = super().act(observation, deterministic)
        spoil(observation)
        return action

    def observe(self, transition):
        spoil(self.action)
        for array in vars(transition).values():
            spoil(array)

    def learn(self, trials):
        metrics = super().learn(trials)
        for array in vars(trials).values():
            spoil(array)
        return metrics
"""


def test_a_whole_run_of_a_spoiling_agent_is_that_of_an_honest_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spoiling_agents.py").write_text(ANYONES)
    monkeypatch.syspath_prepend(tmp_path)
    options: dict[str, Any] = {"budget": "smoke", "device": "cpu", "threads": 1, "quiet": True, "out": tmp_path}
    honest, spoiling = (train(f"spoiling_agents:{name}", "PointGoal", **options).result for name in ("Honest", "Spoiling"))
    assert spoiling.final == honest.final
    assert spoiling.environment_steps == honest.environment_steps
    assert [point.scores for point in spoiling.curve] == [point.scores for point in honest.curve]
    assert honest.final[0].returns[0][0][0] < -1
