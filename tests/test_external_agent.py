"""Anyone's agent, named `module:Class` on the command line: the documented example, and every way in which a class can be wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program import PATIENCE, PROGRAM, refused, shown, timeless

import dmrlad_bench
from dmrlad_bench.cards import CardError, load_agent, resolve_agent
from dmrlad_bench.cards.external import kebab_case
from dmrlad_bench.cli import main
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.run import Run

ROOT = Path(dmrlad_bench.__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "my_agent.py"
OPTIONS = {"env": "PointGoal", "budget": "smoke", "device": "cpu", "threads": 1, "quiet": True}

AGENT = """
import numpy as np

class Still:
    def __init__(self, problem, seed):
        self.problem, self.seed, self.learnt = problem, seed, 0

    def begin_trial(self, num_envs):
        self.num_envs = num_envs

    def act(self, observation, deterministic):
        return np.full((self.num_envs, self.problem.action_dim), 0.1 * self.learnt)

    def observe(self, transition):
        pass
"""
LEARNER = (
    AGENT
    + """
class Learner(Still):
    def learn(self, trials):
        self.learnt += len(trials) > 0
        return {"learnt": self.learnt}
"""
)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes modules into a folder that imports look into; each test has names of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, content: str) -> str:
        (tmp_path / f"{name}.py").write_text(content)
        return name

    yield write
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def trained(agent: str, out: Path, *overrides: str, **options: Any) -> Run:
    return dmrlad_bench.train(agent, out=out, overrides=overrides, **(OPTIONS | options))


def in_folder(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*PROGRAM, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def test_the_documented_example(tmp_path: Path, module: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It learns more than nothing, is saved and scored again, and continues where it was stopped."""
    assert len(EXAMPLE.read_text().splitlines()) < 60
    assert "examples/my_agent.py" in (ROOT / "docs" / "your-agent.md").read_text()
    module("my_agent", EXAMPLE.read_text())
    given = ["run", "--agent", "my_agent:MyAgent", "--env", "PointGoal", "--budget", "smoke", "--threads", "1", "--quiet"]
    given += ["--set", "schedule.trials_per_task=40", "--set", "schedule.iterations=20"]
    done = in_folder(tmp_path, *given)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "PointGoal" / "my-agent--smoke--seed0"
    returns = Run(folder).result.scores().mean_returns
    assert (returns > -18.0).all(), returns  # standing still, as before training, is worth -20.4
    config = tomllib.loads((folder / "config.toml").read_text())["agent"]
    assert (config["algorithm"], config["import_path"]) == ("external", "my_agent:MyAgent")
    assert set(config) == {"name", "algorithm", "import_path", "track", "task_observable", "description", "exploration", "schedule"}
    monkeypatch.chdir(tmp_path)
    again = shown(capsys, "evaluate", "runs/PointGoal/my-agent--smoke--seed0", "--trust-code")
    for mean in returns:
        assert f" {mean:.2f} " in again
    whole = timeless(folder)
    (folder / "result.json").unlink()
    for path in folder.glob("checkpoint-000020*"):
        path.unlink()
    shown(capsys, *given, "--resume")
    assert timeless(folder) == whole


def test_the_class_gets_the_problem_and_a_seed_and_the_schedule_of_the_budget(tmp_path: Path, module: Any) -> None:
    name = module("still_agents", AGENT + "\n    made = []\n    def begin_episode(self):\n        self.made.append(self)\n")
    result = trained(f"{name}:Still", tmp_path / "runs", seed=3).result
    assert (result.agent.name, result.iterations, result.environment_steps) == ("still", 0, 0)
    agent = sys.modules[name].Still.made[0]
    assert type(agent.seed) is int
    assert (agent.problem.observation_dim, agent.problem.action_dim, agent.problem.train_tasks.shape) == (2, 2, (80, 2))
    other = trained(f"{name}:Still", tmp_path / "runs", seed=4)
    assert sys.modules[name].Still.made[-1].seed != agent.seed
    config = other.config.agent
    assert config.import_path == "still_agents:Still"
    usual = resolve_agent(load_agent("dmrlad"), "PointGoal", "smoke").schedule
    assert (config.schedule.iterations, config.schedule.tasks_per_iteration) == (usual.iterations, usual.tasks_per_iteration)


def test_the_digest_covers_the_class_and_the_schedule() -> None:
    def digest(path: str, *overrides: str) -> str:
        return resolve_agent(load_agent(path), "PointGoal", "quick", overrides).digest

    assert digest("a:B") == digest("a:B", "schedule.iterations=80")
    assert len({digest("a:B"), digest("a:C"), digest("a:B", "schedule.iterations=81")}) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MyAgent", "my-agent"), ("HTTPAgent2", "http-agent2"), ("_Private", "private"), ("snake_case", "snake-case"), ("É", "agent")],
)
def test_the_name_is_the_class_in_kebab_case(name: str, expected: str) -> None:
    assert kebab_case(name) == expected
    assert load_agent(f"module:{name}").name == expected


def test_a_card_names_a_class_with_a_name_and_a_schedule_of_its_own(tmp_path: Path, module: Any) -> None:
    name = module("carded_agents", LEARNER)
    card = tmp_path / "mine.toml"
    head = f'name = "mine"\ndescription = "d"\nalgorithm = "external"\nimport_path = "{name}:Learner"\n'
    card.write_text(head + "[schedule]\niterations = 2\n")
    assert trained(str(card), tmp_path / "runs").result.iterations == 2
    card.write_text(head + "[relabel]\ncopies = 2\n")
    with pytest.raises(CardError, match=r"mine\.toml: algorithm 'external' does not read 'relabel'"):
        trained(str(card), tmp_path / "runs")
    card.write_text(head.replace('algorithm = "external"', 'algorithm = "random"'))
    with pytest.raises(CardError, match="import_path goes with algorithm 'external'"):
        trained(str(card), tmp_path / "runs")


def test_only_what_the_harness_reads_can_be_set(capsys: pytest.CaptureFixture[str], tmp_path: Path, module: Any) -> None:
    name = module("set_agents", AGENT)
    arguments = ["run", "--agent", f"{name}:Still", "--env", "PointGoal", "--out", tmp_path / "runs", "--set"]
    for key in ("relabel.kind", "schedule.policy_updates", "exploration.initial"):
        message = refused(capsys, *arguments, f"{key}=1")
        assert f"unknown key '{key}'" in message
        assert "accepted: exploration.initial_iterations, schedule.iterations" in message
    assert not (tmp_path / "runs").exists()


def test_an_agent_that_is_shown_the_task(tmp_path: Path, module: Any) -> None:
    """With position and goal in the observation, walking straight to the goal is optimal: 0.1 m a step over 1 m."""
    walk = "return np.clip((observation[:, 2:] - observation[:, :2]) / 0.1, -1, 1)"
    name = module("shown_agents", AGENT.replace("return np.full((self.num_envs, self.problem.action_dim), 0.1 * self.learnt)", walk))
    with (tmp_path / f"{name}.py").open("a") as file:
        file.write("\n    task_observable = True\n    track = 'privileged'\n")
    run = trained(f"{name}:Still", tmp_path / "runs")
    assert run.config.agent.task_observable
    assert run.result.agent.track == "privileged"
    assert run.result.scores().success_rates.tolist() == [1.0, 1.0, 1.0]


def test_a_device_for_those_that_take_one(tmp_path: Path, module: Any) -> None:
    with_device = AGENT.replace("(self, problem, seed):", "(self, problem, seed, *, device):\n        assert device == 'cpu'")
    assert trained(f"{module('device_agents', with_device)}:Still", tmp_path / "a").finished
    name = module("no_device_agents", AGENT)
    with pytest.raises(CardError, match="device 'cuda': agent 'no_device_agents:Still' has no parameter 'device'; accepted: auto, cpu"):
        trained(f"{name}:Still", tmp_path / "b", device="cuda")


def test_a_learner_that_cannot_be_saved_starts_again(
    tmp_path: Path, module: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module("unsaved_agents", LEARNER)
    whole = trained(f"{name}:Learner", tmp_path / "whole", quiet=False)
    assert "the agent has no state_dict and load_state_dict: it is not saved" in capsys.readouterr().err
    learn = sys.modules[name].Learner.learn

    def stop(agent: Any, trials: Any) -> Any:
        if agent.learnt == 2:
            raise KeyboardInterrupt
        return learn(agent, trials)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="nothing is saved yet"):
        patch.setattr(sys.modules[name].Learner, "learn", stop)
        trained(f"{name}:Learner", tmp_path / "cut")
    resumed = trained(f"{name}:Learner", tmp_path / "cut", resume=True)
    assert timeless(resumed.folder) == timeless(whole.folder)
    np.testing.assert_array_equal(resumed.result.scores("train").returns, whole.result.scores("train").returns)
    with pytest.raises(CardError, match="what it learnt was not saved"):
        dmrlad_bench.evaluate(whole, trust_code=True)


@pytest.mark.parametrize(
    ("content", "path", "fragments"),
    [
        (AGENT, "bad_a:Stil", ["module 'bad_a' has no 'Stil'; its classes: Still"]),
        (AGENT, "bad_b:np", ["module 'bad_b' has a module, not a class, 'np'"]),
        ("import nowhere_to_be_found\n", "bad_c:A", ["importing bad_c failed: ModuleNotFoundError", "nowhere_to_be_found", "bad_c.py:1)"]),
        ("x = 1\n1 / 0\n", "bad_d:A", ["importing bad_d failed: ZeroDivisionError", "bad_d.py:2)"]),
        ("class A:\n  def act(", "bad_e:A", ["importing bad_e failed: SyntaxError", "bad_e.py, line 2"]),
        ("import sys\nsys.exit(3)\n", "bad_f:A", ["importing bad_f failed: SystemExit: 3"]),
        ("class A:\n  def act(self, o, d): ...\n", "bad_g:A", ["has no begin_trial, observe; an agent has begin_trial, act and observe"]),
        (AGENT.replace("problem, seed", "problem"), "bad_h:Still", ["cannot be called as Still(problem, seed): too many positional"]),
        (AGENT + "\n    def state_dict(self): ...\n", "bad_i:Still", ["has state_dict but no load_state_dict; the two go together"]),
        (AGENT, "bad_j.inner:Still", ["importing bad_j.inner failed", "no module named", "bad_j"]),
    ],
)
def test_a_class_that_cannot_be_an_agent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, module: Any, content: str, path: str, fragments: list[str]
) -> None:
    module(path.partition(":")[0].partition(".")[0], content)
    message = refused(capsys, "run", "--agent", path, "--env", "PointGoal", "--out", tmp_path / "runs", "--device", "cpu")
    assert f"agent '{path}'" in message
    assert any(fragment in message for fragment in fragments) if "inner" in path else all(f in message for f in fragments), message
    assert not (tmp_path / "runs").exists()


WRONG = [
    ("act", "return np.zeros(2)", r"act: returned shape \(2,\); expected a finite array of shape \(\d+, 2\)"),
    ("act", "return np.full((self.num_envs, 2), np.nan)", r"act: returned nan; expected a finite array"),
    ("act", "return None", r"act: returned a NoneType of type object; expected"),
    ("act", "return [[1], [1, 2]]", r"act: returned what is no array: .*; expected"),
    ("observe", "raise KeyError('belief')", r"observe: KeyError: 'belief' \(.*wrong_agents\.py:\d+\)"),
    ("begin_trial", "import sys; sys.exit('enough')", r"begin_trial: SystemExit: enough \(.*wrong_agents\.py:\d+\)"),
    ("learn", "return [1.0]", r"learn: expected a dict of numbers, to be logged, or None: got a list"),
    ("learn", "return {'loss': 'small'}", r"learn: expected a dict of numbers.*'small'"),
    ("learn", "return np.linalg.inv(np.zeros((2, 2)))", r"learn: LinAlgError: Singular matrix \(.*wrong_agents\.py:\d+\)"),
    ("__init__", "raise OSError('no weights\\nhere')", r"Wrong\(problem, seed\): OSError: no weights here \(.*wrong_agents\.py:\d+\)"),
    ("state_dict", "return {'replay': object()}", r"state_dict: state entry '/agent/replay' is a object; a checkpoint holds"),
    ("state_dict", "return {'names': np.array(['a'])}", r"state_dict: state entry '/agent/names' is a ndarray"),
]


@pytest.mark.parametrize(("method", "body", "expected"), WRONG)
def test_what_an_agent_does_wrong_is_one_line_and_a_traceback_in_a_file(
    tmp_path: Path, module: Any, method: str, body: str, expected: str
) -> None:
    parameters = {"act": "observation, deterministic", "observe": "transition", "begin_trial": "num_envs", "learn": "trials"}
    parameters |= {"__init__": "problem, seed", "state_dict": ""}
    saving = "\n    def load_state_dict(self, state): ...\n" if method == "state_dict" else ""
    wrong = f"\nclass Wrong(Learner):\n    def {method}(self, {parameters[method]}):\n        {body}\n{saving}"
    name = module("wrong_agents", LEARNER + wrong)
    with pytest.raises(RunFailed, match=rf"stopped: agent 'wrong_agents:Wrong': {expected}") as caught:
        trained(f"{name}:Wrong", tmp_path / "runs")
    folder = tmp_path / "runs" / "PointGoal" / "wrong--smoke--seed0"
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"traceback: {folder / 'error.log'}")
    assert "Traceback (most recent call last)" in (folder / "error.log").read_text()


def test_the_program_says_it_and_exits_with_1(tmp_path: Path, module: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = module("failing_agents", LEARNER + "\nclass Failing(Learner):\n    def learn(self, trials):\n        raise ValueError('no')\n")
    arguments = ["run", "--agent", f"{name}:Failing", "--agent", f"{name}:Learner", "--env", "PointGoal", "--budget", "smoke"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--threads", "1", "--quiet", "--out", str(tmp_path / "runs")])
    printed = capsys.readouterr()
    assert caught.value.code == 1
    assert re.fullmatch(r"dmrlad-bench: error: .*: learn: ValueError: no \(.*failing_agents\.py:\d+\); traceback: .*\n", printed.err)
    assert re.findall(r"^│ (\w+) +│ DMRLAD", printed.out, re.MULTILINE) == ["learner"]
    assert json.loads((tmp_path / "runs/PointGoal/learner--smoke--seed0/result.json").read_bytes())["agent"]["name"] == "learner"
