"""A run folder that names code does not run it unasked, and code that ends the program does not end it as if all were done."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from program import refused, shown

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.cli import main
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.run import Run

ROOT = Path(dmrlad_bench.__file__).parent.parent
SMOKE = ("--budget", "smoke", "--device", "cpu", "--threads", "1", "--quiet")
MARK = "import pathlib\npathlib.Path(__file__).with_name('it-ran').touch()\n"
AGENT = f"""{MARK}
import numpy as np

class Agent:
    def __init__(self, problem, seed):
        self.problem = problem

    def begin_trial(self, num_envs):
        self.num_envs = num_envs

    def act(self, observation, deterministic):
        return np.zeros((self.num_envs, self.problem.action_dim))

    def observe(self, transition):
        pass
"""
BODY = MARK + "from dmrlad_bench.envs.bodies import Point\nclass Ball(Point):\n    pass\n"
NAMED = {"downloaded_agent": AGENT, "downloaded_body": BODY}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the modules that runs name; imports look there only once the program makes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, content in NAMED.items():
        (tmp_path / f"{name}.py").write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def forget(here: Path) -> None:
    """As in a new process: nothing is imported yet, nor looked for in the current folder."""
    for name in NAMED:
        sys.modules.pop(name, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(here)]
    (here / "it-ran").unlink(missing_ok=True)


def write_family(here: Path, body: str) -> None:
    """`Ball.toml`: PointGoal with a body of another's."""
    card = (ROOT / "envs" / "PointGoal.toml").read_text().replace('name = "PointGoal"', 'name = "Ball"')
    (here / "Ball.toml").write_text(card.replace('body = "point"', f'body = "{body}"'))


def run_of(here: Path, capsys: pytest.CaptureFixture[str], *, agent: str = "random", body: str | None = None) -> Path:
    """A finished run folder."""
    env = "PointGoal"
    if body is not None:
        write_family(here, body)
        env = "Ball.toml"
    shown(capsys, "run", "--agent", agent, "--env", env, *SMOKE)
    assert (here / "it-ran").exists() == (agent != "random" or body is not None)
    forget(here)
    (folder,) = (here / "runs").glob("*/*--smoke--seed0")
    return folder


def nothing_ran(here: Path) -> bool:
    return not (here / "it-ran").exists() and not set(NAMED) & set(sys.modules) and str(here) not in sys.path


CODE = [
    ({"agent": "downloaded_agent:Agent"}, "'downloaded_agent:Agent' (agent.import_path)"),
    ({"body": "downloaded_body:Ball"}, "'downloaded_body:Ball' (family.body)"),
    (
        {"agent": "downloaded_agent:Agent", "body": "downloaded_body:Ball"},
        "'downloaded_agent:Agent' (agent.import_path) and 'downloaded_body:Ball' (family.body)",
    ),
]


@pytest.mark.parametrize(("options", "named"), CODE)
def test_evaluate_asks_before_it_imports(here: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str], named: str) -> None:
    folder = run_of(here, capsys, **options)
    message = refused(capsys, "evaluate", folder)
    assert message.startswith(f"dmrlad-bench: error: {folder}: scoring it imports {named} and runs that code")
    assert "--trust-code" in message
    assert nothing_ran(here)
    for given in (folder, str(folder), Run(folder)):
        for env in (None, "PointGoal"):
            with pytest.raises(CardError, match="trust_code=True"):
                dmrlad_bench.evaluate(given, env)
    assert nothing_ran(here)
    table = shown(capsys, "evaluate", folder, "--trust-code", "--episodes", "1", "--threads", "1")
    assert (here / "it-ran").exists()
    assert "return" in table
    sys.path.insert(0, str(here))
    scores = dmrlad_bench.evaluate(folder, trust_code=True, threads=1)
    assert (scores.returns == Run(folder).result.scores().returns).all()


def test_a_run_without_code_of_others_is_scored_without_a_question(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(here, capsys)
    assert "return" in shown(capsys, "evaluate", folder, "--episodes", "1")
    assert "return" in shown(capsys, "evaluate", folder, "--episodes", "1", "--trust-code")
    assert str(here) not in sys.path


def test_nothing_else_that_reads_run_folders_imports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_of(here, capsys, agent="downloaded_agent:Agent", body="downloaded_body:Ball")
    figure = here / "figure.png"
    readers = (
        ["compare", folder],
        ["plot", folder, "--kind", "adaptation", "--out", figure],
        ["submit", folder, "--out", here / "boards", "--name", "theirs"],
        ["reference", folder],
    )
    for command in readers:
        with pytest.raises(SystemExit):
            main([str(part) for part in command])
        assert nothing_ran(here), command
    assert figure.exists()
    assert len(dmrlad_bench.compare([Run(folder)]).groups) == 1
    assert nothing_ran(here)


def test_a_resumed_run_imports_what_was_typed_only(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder's configuration is compared with what was asked for, and differs, before anything of it is imported."""
    for options in ({"agent": "downloaded_agent:Agent"}, {"body": "downloaded_body:Ball"}):
        folder = run_of(here, capsys, **options)
        (folder / "result.json").unlink()
        wanted = here / "runs" / "PointGoal" / "random--smoke--seed0"
        if folder != wanted:
            wanted.parent.mkdir(exist_ok=True)
            shutil.move(folder, wanted)
        capsys.readouterr()
        message = refused(capsys, "run", "--agent", "random", "--env", "PointGoal", *SMOKE, "--resume")
        assert "cannot resume with another configuration" in message
        assert nothing_ran(here)
        shutil.rmtree(here / "runs")
    folder = run_of(here, capsys, agent="downloaded_agent:Agent")
    (folder / "result.json").unlink()
    shown(capsys, "run", "--agent", "downloaded_agent:Agent", "--env", "PointGoal", *SMOKE, "--resume")  # typed: no question
    assert (here / "it-ran").exists()
    assert Run(folder).finished


@pytest.mark.parametrize(
    "how", ["import sys; sys.exit(0)", "raise SystemExit", "raise GeneratorExit", "class E(BaseException): pass\nraise E"]
)
def test_modules_that_end_the_program_are_bad_input(here: Path, capsys: pytest.CaptureFixture[str], how: str) -> None:
    (here / "downloaded_agent.py").write_text(how)
    (here / "downloaded_body.py").write_text(how)
    message = refused(capsys, "run", "--agent", "downloaded_agent:Agent", "--env", "PointGoal", *SMOKE)
    assert "agent 'downloaded_agent:Agent': importing downloaded_agent failed: " in message
    write_family(here, "downloaded_body:Ball")
    message = refused(capsys, "run", "--agent", "random", "--env", "Ball.toml", *SMOKE)
    assert "key 'body': 'downloaded_body:Ball': importing 'downloaded_body' failed: " in message
    assert not (here / "runs").exists()


@pytest.mark.parametrize("method", ["step", "observe", "measure", "initial_state"])
def test_a_body_that_ends_the_program_while_it_runs_fails_the_run(here: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    (here / "downloaded_body.py").write_text(BODY.replace("    pass", f"    def {method}(self, *given):\n        import sys; sys.exit(0)"))
    write_family(here, "downloaded_body:Ball")
    with pytest.raises(SystemExit) as caught:
        main(["run", "--agent", "random", "--env", "Ball.toml", *SMOKE])
    printed = capsys.readouterr()
    assert caught.value.code == 1
    assert printed.err.count("\n") == 1
    assert f"stopped: SystemExit: 0 ({here / 'downloaded_body.py'}:" in printed.err
    (log,) = (here / "runs").rglob("error.log")
    assert "SystemExit: 0" in log.read_text()
    with pytest.raises(RunFailed, match="SystemExit: 0"):
        dmrlad_bench.evaluate(log.parent, trust_code=True)


def test_a_body_that_ends_the_program_where_nothing_runs_yet_is_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = "    @classmethod\n    def observation_dim(cls, *given):\n        raise SystemExit(0)"
    (here / "downloaded_body.py").write_text(BODY.replace("    pass", ends))
    write_family(here, "downloaded_body:Ball")
    assert "SystemExit: 0" in refused(capsys, "run", "--agent", "random", "--env", "Ball.toml", *SMOKE)


def test_workers_of_meta_world_import_from_where_their_parent_does(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is started as `python -c`, which looks into the current folder first unless it is told not to."""
    from dmrlad_bench.envs import metaworld_workers

    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **options: object) -> None:
            started.append(command)

        def wait(self, seconds: float) -> None: ...

    monkeypatch.setattr(metaworld_workers.subprocess, "Popen", Process)
    metaworld_workers.Workers(1).close()
    assert started[0][:3] == [sys.executable, "-P", "-c"]
