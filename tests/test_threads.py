"""Threads: how many by default, what is asked for, what a folder records when a resume asks for others, and that they do not spin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from counting_agent import CountingAgent
from counting_runs import planned, rows, run, stopped_before_the_end, timeless
from program import PATIENCE, refused, shown

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness import threads
from dmrlad_bench.harness.run import read_config
from dmrlad_bench.harness.threads import Threads, sleep_while_waiting, threads_for
from dmrlad_bench.reports.results import Result


@pytest.mark.parametrize(
    ("budget", "jobs", "asked", "simulation", "expected"),
    [
        ("smoke", 1, None, None, (1, 8)),
        ("quick", 1, None, None, (1, 8)),
        ("quick", 3, None, None, (1, 2)),
        ("standard", 1, None, None, (8, 8)),
        ("full", 2, None, None, (4, 4)),
        ("full", 99, None, None, (1, 1)),
        ("quick", 1, 4, None, (4, 4)),  # --threads alone: all there is
        ("quick", 1, None, 3, (1, 3)),
        ("full", 1, 2, 5, (2, 5)),
    ],
)
def test_defaults_and_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, budget: str, jobs: int, asked: int | None, simulation: int | None, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    assert threads_for(asked, simulation, budget, jobs) == expected


def test_a_folder_s_own_stand_unless_others_are_asked_for() -> None:
    recorded = Threads(3, 5)
    assert threads_for(None, None, "quick", recorded=recorded) == (3, 5)
    assert threads_for(2, None, "quick", recorded=recorded) == (2, 2)
    assert threads_for(None, 1, "quick", recorded=recorded) == (3, 1)


@pytest.mark.parametrize(("option", "name"), [("--threads", "threads"), ("--simulation-threads", "simulation_threads")])
def test_fewer_than_one_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, name: str) -> None:
    message = refused(capsys, "run", "--agent", "random", "--out", tmp_path, option, "0")
    assert f"{name}: expected at least 1, got 0" in message
    with pytest.raises(CardError, match=f"{name}: expected at least 1, got -1"):
        planned(tmp_path, **{name: -1})


SMALL = ("initial_tasks", "evaluation_tasks", "final_tasks", "reconstruction_updates", "policy_updates")


def test_the_simulation_s_threads_change_no_result(tmp_path: Path) -> None:
    """CheetahVel, which MuJoCo steps; the agent learns, so that whatever differed would grow."""
    from dmrlad_bench.harness.api import plan
    from dmrlad_bench.harness.train import train_run

    found = []
    for simulation in (1, 3):
        options = {"budget": "smoke", "device": "cpu", "threads": 1, "simulation_threads": simulation, "out": tmp_path / str(simulation)}
        overrides = ("schedule.iterations=1", *(f"schedule.{name}=2" for name in SMALL))
        config, folder = plan("cemrl", "CheetahVel", overrides=overrides, **options)
        assert (config.threads, config.simulation_threads) == (1, simulation)
        train_run(config, folder, resume=False, command=["test"], quiet=True)
        content = timeless(folder)
        assert content.pop("simulation_threads") == simulation
        assert content.pop("sittings") == [{"after_iteration": 0, "threads": 1, "simulation_threads": simulation}]
        found.append((content, rows(folder)))
    assert found[0] == found[1]


def test_a_resume_with_other_threads_is_recorded(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    for path in folder.glob("checkpoint-000003*"):
        path.unlink()
    before = (folder / "config.toml").read_bytes()
    resumed = run(tmp_path, resume=True, threads=2, simulation_threads=3)
    assert (folder / "config.toml").read_bytes() == before
    result = resumed.result
    assert (result.threads, result.simulation_threads) == (1, 1)
    assert [tuple(sitting.model_dump().values()) for sitting in result.sittings] == [(0, 1, 1), (2, 2, 3)]


def test_sittings_without_progress_or_change_leave_no_record(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    for count in (2, 1):  # the first of the two gets no further
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("dmrlad_bench.harness.session.Session._finish", _interrupted)
            run(tmp_path, resume=True, threads=count)
    assert [tuple(one.model_dump().values()) for one in run(tmp_path, resume=True).result.sittings] == [(0, 1, 1)]
    assert read_config(folder).threads == 1


def _interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_and_a_configuration_of_before_go_on(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dmrlad_bench.harness import session

    counting()
    with monkeypatch.context() as patch:
        patch.setattr(session, "asdict", lambda position: {key: value for key, value in vars(position).items() if key != "sittings"})
        folder = stopped_before_the_end(tmp_path, monkeypatch)
    config = folder / "config.toml"
    config.write_text(config.read_text().replace("simulation_threads = 1\n", ""))
    assert "simulation_threads" not in tomllib.loads(config.read_text())
    result = run(tmp_path, resume=True, threads=4).result
    assert [tuple(sitting.model_dump().values()) for sitting in result.sittings] == [(0, 1, 1), (3, 4, 4)]


def test_a_result_of_before_is_read_and_written_as_it_was(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    """Digests of published entries are those of their runs as they stand there."""
    counting()
    content = run(tmp_path).result.model_dump(mode="json")
    assert {"simulation_threads", "sittings"} <= content.keys()
    older = {key: value for key, value in content.items() if key not in ("simulation_threads", "sittings")}
    assert Result.model_validate_json(json.dumps(older)).model_dump(mode="json") == older


def test_resume_with_other_threads_on_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["run", "--agent", "random", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--quiet", "--out", tmp_path]
    first = shown(capsys, *command, "--threads", "1")
    assert shown(capsys, *command, "--threads", "2", "--resume") == first  # it has finished


POLICY = """
import os, sys
from dmrlad_bench.cli import main
assert "OMP_WAIT_POLICY" not in os.environ
try:
    main(["run", "--agent", "random", "--env", "PointGoal", "--budget", "smoke", "--out", sys.argv[1], "--quiet"])
finally:
    print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""


def test_the_program_s_threads_sleep_while_they_wait_and_a_library_s_user_s_are_left_alone(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", POLICY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert done.stdout.splitlines()[-1:] == ["passive True"], done.stdout + done.stderr


def test_a_policy_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
