"""A run, in process: what it leaves, that it is repeatable, and the folder that it has to itself."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_agent import CountingAgent
from counting_runs import COMMAND, ITERATIONS, OVERRIDES, planned, rows, run, stopped_before_the_end, timeless
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dmrlad_bench
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.harness import train
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.run import Run, locked
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.reports.results import result_schema


def test_a_run_leaves_what_it_promises(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    agents = counting()
    finished = run(tmp_path)
    folder = tmp_path / "PointGoal" / "dmrlad--smoke--seed0"
    assert finished.folder == folder
    assert finished.finished
    result = finished.result
    solved = family("PointGoal")
    initial = 80 * solved.episodes_per_trial * solved.horizon * 2  # 100 steps a task are two trials of 60
    later = 4 * solved.episodes_per_trial * solved.horizon
    assert result.environment_steps == initial + later * (ITERATIONS - 1)
    assert result.gradient_updates == 3 * ITERATIONS
    assert result.wall_seconds.phases["improve"] == pytest.approx(0.5 * ITERATIONS)
    assert {"collect", "evaluate", "save", "improve"} <= set(result.wall_seconds.phases)
    assert [point.iteration for point in result.curve] == [2, 3]
    assert [(matrix.split, matrix.deterministic) for matrix in result.final] == [
        ("test", True),
        ("train", True),
        ("ood", True),
        ("test", False),
    ]
    assert result.scores("test").returns.shape == (20, 3)
    assert result.command == tuple(COMMAND)
    assert result.family.digest == solved.digest
    content = tomllib.loads((folder / "config.toml").read_text())
    assert content["agent"]["schedule"]["iterations"] == ITERATIONS
    assert content["family"]["tasks"]["test"] == solved.tasks("test").tolist()
    table = rows(folder)
    assert [row["iteration"] for row in table] == ["1", "2", "3"]
    assert table[0]["eval/validation_return_3"] == ""
    assert float(table[1]["eval/validation_return_3"]) < 0
    assert float(table[0]["losses/critic"]) >= 0
    assert not (folder / "replay").exists()
    assert agents[0].calls[0] == "begin_training_trial 1"
    assert "begin_trial" not in agents[0].calls  # forks are scored, not the learner


def test_the_published_schema_is_the_models_and_results_satisfy_it(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    published = Path(__file__).parent.parent / "docs" / "result.schema.json"
    assert published.read_text() == result_schema(), "regenerate it as CONTRIBUTING.md says"
    counting()
    jsonschema.validate(json.loads((run(tmp_path).folder / "result.json").read_bytes()), json.loads(published.read_text()))


def test_tensorboard_has_the_same_scalars(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    for path in folder.glob("checkpoint-000003*"):
        path.unlink()
    run(tmp_path, resume=True)  # iteration 3 is written twice, and counts once
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = events.Scalars("eval/validation_return_3")
    expected = [row for row in rows(folder) if row["eval/validation_return_3"]]
    assert [event.step for event in scalars] == [int(row["environment_steps"]) for row in expected]
    np.testing.assert_allclose([event.value for event in scalars], [float(row["eval/validation_return_3"]) for row in expected], rtol=1e-5)


def test_same_seed_same_result_and_another_seed_another(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    first, second, third = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", seed=1)
    assert timeless(first.folder) == timeless(second.folder)
    assert rows(first.folder) == rows(second.folder)
    assert timeless(first.folder)["final"] != timeless(third.folder)["final"]


def test_evaluating_more_often_changes_nothing_else(tmp_path: Path) -> None:
    seldom, often = run(tmp_path / "a"), run(tmp_path / "b", "schedule.evaluation_interval=1")
    assert timeless(seldom.folder)["final"] == timeless(often.folder)["final"]


def test_two_runs_in_one_folder(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    config, folder = planned(tmp_path)
    with locked(folder), pytest.raises(CardError, match="another process is running here"):
        train_run(config, folder, resume=True, command=COMMAND, quiet=True)


def test_a_folder_that_comes_into_use_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = planned(tmp_path)

    @contextmanager
    def late(path: Path) -> Iterator[None]:
        path.mkdir(parents=True)
        (path / "config.toml").write_bytes(config.toml())
        with locked(path):
            yield

    monkeypatch.setattr(train, "locked", late)
    with pytest.raises(CardError, match="exists and is not empty; pass --resume"):
        train_run(config, folder, resume=False, command=COMMAND, quiet=True)


def test_what_a_run_killed_at_its_very_start_leaves_is_no_obstacle(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    _, folder = planned(tmp_path)
    folder.mkdir(parents=True)
    for name in ("run.lock", "config.toml.partial"):
        (folder / name).touch()
    assert run(tmp_path).finished
    assert not list(folder.glob("*.partial"))


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.raises(CardError, match="cannot be locked: No locks available"), locked(tmp_path):
        pass


def test_an_existing_folder_is_left_alone(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    folder = run(tmp_path).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(CardError, match="exists and is not empty; pass --resume"):
        run(tmp_path)
    foreign = tmp_path / "other" / "PointGoal" / "dmrlad--smoke--seed0"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(CardError, match=r"cannot be resumed: it is not empty and has no config\.toml"):
        run(tmp_path / "other", resume=True)
    assert os.listdir(foreign) == ["thesis.tex"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_agent_without_learn_is_scored_only(tmp_path: Path) -> None:
    config, folder = plan("random", "PointGoal", out=tmp_path, budget="smoke", device="cpu", threads=1)
    result = train_run(config, folder, resume=False, command=COMMAND, quiet=True).result
    assert (result.environment_steps, result.iterations, len(result.curve)) == (0, 0, 1)
    assert isinstance(TaskFamily(Run(folder).config.family), TaskFamily)


def test_the_python_function(tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str]) -> None:
    counting()
    options: dict[str, Any] = {
        "env": "PointGoal",
        "budget": "smoke",
        "device": "cpu",
        "threads": 1,
        "out": tmp_path,
        "overrides": OVERRIDES,
    }
    trained = dmrlad_bench.train("dmrlad", seed=2, **options)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "PointGoal dmrlad seed 2: iteration 3/3" in printed.err
    assert trained.folder == tmp_path / "PointGoal" / "dmrlad--smoke--seed2"
    assert trained.result.command[:6] == ("dmrlad-bench", "run", "--agent", "dmrlad", "--env", "PointGoal")
    with pytest.raises(CardError, match="pass --resume"):
        dmrlad_bench.train("dmrlad", seed=2, **options)
    assert dmrlad_bench.train("dmrlad", seed=2, resume=True, **options).result == trained.result
