"""Tracks: what an agent says of itself, what reaches it while it is scored, and where the track shows."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from program import refused, shown
from report_results import make_result

import dmrlad_bench
from dmrlad_bench.agents.external import complete
from dmrlad_bench.cards import CardError, agent_names, load_agent, resolve_agent
from dmrlad_bench.cards.agent_config import AgentConfig
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness import agent as harness_agent
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.collect import Environments
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.evaluate import score
from dmrlad_bench.reports.comparison import compare
from dmrlad_bench.reports.tables import runs_table

OPTIONS: dict[str, Any] = {"env": "PointGoal", "budget": "smoke", "device": "cpu", "threads": 1, "quiet": True}
PRIVILEGED = {"oracle", "scripted", "thompson"}
CLASS = """
import copy
import numpy as np

class Asks:
    TRACK
    def __init__(self, problem, seed):
        self.problem, self.kept = problem, copy.deepcopy(problem)
        self.rewards = problem.reward(np.zeros((1, problem.outcome_dim)), problem.train_tasks)  # while it is made
        self.outcomes = 0

    def begin_trial(self, num_envs):
        self.num_envs = num_envs

    def act(self, observation, deterministic):
        return np.zeros((self.num_envs, self.problem.action_dim))

    def observe(self, transition):
        pass

    def judged(self, problem):
        problem.success(np.zeros((1, problem.outcome_dim)), problem.train_tasks)
        return problem.reward(np.zeros((1, problem.outcome_dim)), problem.train_tasks)

class Learns(Asks):
    def learn(self, trials):
        return {"reward": self.judged(self.problem).mean()}

    def begin_training_trial(self, num_envs, iteration):
        self.begin_trial(num_envs)
        self.judged(self.kept)
"""


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes modules into a folder that imports look into; each has a name of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name: str, content: str) -> str:
        (tmp_path / f"{name}.py").write_text(content)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def content_of(track: str = "pass", also: str = "") -> str:
    return CLASS.replace("TRACK", track) + also


# ---- declaring ----------------------------------------------------------------------------------------------------------


def test_the_presets_say_their_track(capsys: pytest.CaptureFixture[str]) -> None:
    found = {name for name in agent_names() if resolve_agent(load_agent(name), "SawyerReachSparse", "quick").track == "privileged"}
    assert found == PRIVILEGED
    listed = re.sub(" +", " ", shown(capsys, "agents"))
    assert "│ oracle │ privileged │" in listed and "│ task-posterior │ standard │" in listed


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"algorithm": "cemrl", "task_observable": True}, "task_observable = true shows the task to the agent: track must be 'privileged'"),
        ({"algorithm": "cemrl", "track": "privileged"}, "track must be 'standard', got 'privileged'"),
        ({"algorithm": "thompson", "posterior": {}, "inference": {"kind": "none"}}, "track must be 'privileged', got 'standard'"),
        ({"algorithm": "scripted", "track": "privileged", "posterior": {}}, "section 'posterior' is read by algorithm 'thompson' only"),
        ({"algorithm": "task-posterior", "reward_model": {}}, "finds the task among those of training"),
        ({"algorithm": "task-posterior", "inference": {"kind": "none"}, "relabel": {"kind": "none"}}, "needs its section 'reward_model'"),
    ],
)
def test_a_card_cannot_say_another_track_than_its_agent_has(content: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        AgentConfig(name="a", description="", **content)


def test_the_track_is_no_part_of_the_digest_but_of_the_configuration() -> None:
    config = resolve_agent(load_agent("a:B"), "PointGoal", "smoke")
    assert config.model_copy(update={"track": "privileged"}).digest == config.digest
    assert config.model_dump()["track"] == "standard"


DECLARED = [
    ("pass", "", "standard"),
    ("track = 'standard'", "", "standard"),
    ("track = 'privileged'", "", "privileged"),
    ("track = 'privileged'; task_observable = True", "", "privileged"),
    ("task_observable = True", "", "task_observable = True is for the privileged track only: the class must declare track = 'privileged'"),
    ("pass", "\n    def observe_outcome(self, outcome): ...\n", "observe_outcome is for the privileged track only"),
    ("track = 'secret'", "", "track: expected 'standard' or 'privileged', got 'secret'"),
    ("track = 3", "", "track: expected 'standard' or 'privileged', got 3"),
]


@pytest.mark.parametrize(("track", "also", "expected"), DECLARED)
def test_what_a_class_may_declare(classes: Any, track: str, also: str, expected: str, request: pytest.FixtureRequest) -> None:
    name = classes(f"declared_{abs(hash(request.node.name))}", content_of(track, also).replace("class Learns", f"{also}\nclass Learns"))
    attempt = resolve_agent(load_agent(f"{name}:Asks"), "PointGoal", "smoke")
    if also:
        attempt = resolve_agent(load_agent(f"{name}:Learns"), "PointGoal", "smoke")
    if expected in ("standard", "privileged"):
        assert complete(attempt).track == expected
        return
    with pytest.raises(CardError, match=re.escape(expected)):
        complete(attempt)


def test_a_card_makes_a_class_privileged_unless_the_class_says_otherwise(classes: Any, tmp_path: Path) -> None:
    name = classes("carded_tracks", content_of("pass", "\nclass Standard(Asks):\n    track = 'standard'\n"))
    for found, expected in (("Asks", None), ("Standard", "track is 'standard' on the class, 'privileged' on the card")):
        card = tmp_path / f"{found}.toml"
        card.write_text(f'name = "mine"\ndescription = "d"\nalgorithm = "external"\ntrack = "privileged"\nimport_path = "{name}:{found}"\n')
        config = resolve_agent(load_agent(card), "PointGoal", "smoke")
        if expected is None:
            assert complete(config).track == "privileged"
        else:
            with pytest.raises(CardError, match=re.escape(expected)):
                complete(config)


def test_the_program_refuses_an_undeclared_privilege(classes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = classes("undeclared", content_of("task_observable = True"))
    message = refused(capsys, "run", "--agent", f"{name}:Asks", "--env", "PointGoal", "--device", "cpu", "--out", tmp_path / "runs")
    assert "declare track = 'privileged'" in message
    assert not (tmp_path / "runs").exists()


# ---- what reaches an agent while it is scored ----------------------------------------------------------------------------

SEEN = "\n    def observe(self, transition):\n        self.judged(self.{})\n"
ASKING = {
    "own": f"\nclass Scored(Learns):{SEEN.format('problem')}",
    "copied": f"\nclass Scored(Learns):{SEEN.format('kept')}",
    "forked": f"\nclass Scored(Learns):\n    def fork(self, seed):\n        return copy.deepcopy(self)\n{SEEN.format('problem')}",
    "in-fork": "\nclass Scored(Learns):\n    def fork(self, seed):\n        self.judged(self.problem)\n        return self\n",
}


@pytest.mark.parametrize("way", ASKING)
def test_a_standard_agent_that_asks_for_the_reward_function_while_scored_fails_in_one_line(classes: Any, tmp_path: Path, way: str) -> None:
    also = ASKING[way]
    if way != "in-fork":  # it may ask while it collects training data, which it observes as well
        also = also.replace("self.judged", "if not self.training:\n            self.judged")
        also += "\n    training = False\n    def begin_trial(self, num_envs):\n        self.training = False\n"
        also += "        super().begin_trial(num_envs)\n"
        also += "    def begin_training_trial(self, num_envs, iteration):\n        super().begin_training_trial(num_envs, iteration)\n"
        also += "        self.training = True\n"
    name = classes(f"asking_{way.replace('-', '_')}", content_of(also=also))
    expected = rf"agent '{name}:Scored': \w+: PrivilegeMissing: problem\.success is not there .*{name}\.py"
    with pytest.raises(RunFailed, match=expected) as caught:
        dmrlad_bench.train(f"{name}:Scored", out=tmp_path / "runs", overrides=("schedule.iterations=1",), **OPTIONS)
    assert "\n" not in str(caught.value) and "declares track = 'privileged'" in str(caught.value)


def test_while_it_is_made_trained_and_after_being_scored_it_has_the_functions(classes: Any, tmp_path: Path) -> None:
    name = classes("trained_tracks", content_of())
    run = dmrlad_bench.train(f"{name}:Learns", out=tmp_path / "runs", overrides=("schedule.evaluation_interval=1",), **OPTIONS)
    assert run.result.agent.track == "standard"
    assert len(run.result.curve) == run.result.iterations  # scored after every iteration, and trained on


def test_a_privileged_agent_has_the_functions_and_the_outcomes(classes: Any, tmp_path: Path) -> None:
    also = """
class Handed(Asks):
    track = "privileged"
    def observe_outcome(self, outcome):
        self.outcome = outcome

    def observe(self, transition):
        assert np.isfinite(self.problem.reward(self.outcome[:, None], self.problem.train_tasks[None])).all()
        del self.outcome  # so there is one for each observe
"""
    name = classes("handed_tracks", content_of(also=also))
    run = dmrlad_bench.train(f"{name}:Handed", out=tmp_path / "runs", **OPTIONS)
    assert json.loads((run.folder / "result.json").read_bytes())["agent"]["track"] == "privileged"
    assert dmrlad_bench.evaluate(run, trust_code=True).returns.shape[0] == 20


@pytest.mark.parametrize("agent", sorted(set(agent_names()) - PRIVILEGED))
def test_our_own_standard_agents_ask_for_nothing_while_scored(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = family("PointGoalSparse")
    config, _ = plan(agent, "PointGoalSparse", budget="smoke", device="cpu", threads=1)

    def forbidden(outcome: Any, task: Any) -> Any:
        raise AssertionError("asked for the reward function")

    monkeypatch.setattr(harness_agent, "_judge", lambda _: SimpleNamespace(reward=forbidden, success=forbidden))
    built: Any = harness_agent.make_agent(config, solved)
    assert not built.task_observable and getattr(built, "track", "standard") == "standard"
    environments = Environments(solved, False, 1, config.agent.shown_while_training)
    scores = score(environments, built, "validation", np.random.SeedSequence(0), episodes=2, tasks=2)
    environments.close()
    assert np.isfinite(scores.returns).all()


def test_a_scored_posterior_agent_is_not_shown_the_task_that_its_training_shows() -> None:
    environments = Environments(family("PointGoal"), False, 1, True)
    assert environments.get("test", 2).single_observation_space.shape == (2,)
    assert environments.get("test", 2, training=True).single_observation_space.shape == (4,)
    environments.close()


# ---- where it shows -----------------------------------------------------------------------------------------------------


def test_tables_hold_privileged_agents_apart() -> None:
    runs = [make_result(agent, seed=seed, level=level) for agent, level in (("oracle", 9.0), ("dmrlad", 5.0)) for seed in (0, 1, 2)]
    comparison = compare(runs, baseline="dmrlad")
    text = comparison.table("markdown")
    assert text.index("| dmrlad |") < text.index("| oracle (privileged) |")
    assert "ranked apart" in text
    assert comparison.ranks("DMRLAD/PointGoalSparse-v0") == {"oracle": 1, "dmrlad": 1}
    assert [column.header for column in runs_table(runs).renderables[1].columns][:4] == ["agent", "family", "budget", "track"]  # pyright: ignore[reportAttributeAccessIssue]


def test_runs_of_two_tracks_are_not_one_agent() -> None:
    runs = [make_result("dmrlad", seed=0), make_result("dmrlad", seed=1)]
    other = runs[1].model_copy(update={"agent": runs[1].agent.model_copy(update={"track": "privileged"})})
    with pytest.raises(CardError, match="track differs"):
        compare([runs[0], other])
