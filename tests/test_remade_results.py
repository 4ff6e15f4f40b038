"""Finished runs whose result was lost or cut, and checkpoints that are damaged: scored again from what is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting_agent import CountingAgent
from counting_runs import run, timeless
from program import shown

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness import agent
from dmrlad_bench.harness.api import evaluate
from dmrlad_bench.reports.results import read_result

SMALL = ["run", "--budget", "smoke", "--device", "cpu", "--threads", "1", "--quiet"]
LOST_OR_CUT = [None, 0, 100]


def cut(path: Path, length: int | None) -> bytes:
    """Take a file away, or cut it to so many bytes; returns what it held."""
    content = path.read_bytes()
    if length is None:
        path.unlink()
    else:
        path.write_bytes(content[:length])
    return content


@pytest.mark.parametrize("length", LOST_OR_CUT)
def test_a_lost_or_cut_result_is_made_again(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str], length: int | None
) -> None:
    made = counting()
    folder = run(tmp_path).folder
    before = timeless(folder)
    rows = (folder / "progress.csv").read_text()
    cut(folder / "result.json", length)
    assert run(tmp_path, resume=True).result.wall_seconds.phases["improve"] > 0
    assert timeless(folder) == before
    assert "learn" not in made[-1].calls and made[-1].replay == []
    assert (folder / "progress.csv").read_text() == rows
    notice = capsys.readouterr().err
    assert notice == ("" if length is None else f"{folder / 'result.json'}: truncated or not JSON; it is made again from checkpoint 3\n")


@pytest.mark.parametrize(
    ("name", "setting"),
    [("dmrlad", "exploration.test_episodes=1"), ("pearl-hfr", "pearl.meta_batch=4"), ("rl2", "recurrent.sequence=8"), ("oracle", None)],
)
def test_every_kind_of_learner_is_scored_without_its_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, setting: str | None
) -> None:
    """All of the result is that of the uninterrupted run but its seconds; the curve and its times included."""
    env = "PointGoalSparse"
    given = [*SMALL, "--agent", name, "--env", env, "--out", tmp_path, "--set", "schedule.iterations=2"]
    given += [] if setting is None else ["--set", setting]
    shown(capsys, *given)
    folder = tmp_path / env / f"{name}--smoke--seed0"
    before = json.loads(cut(folder / "result.json", None))
    assert not (folder / "replay").exists()
    shown(capsys, *given, "--resume")
    after = json.loads((folder / "result.json").read_bytes())
    assert after.pop("wall_seconds")["total"] > before.pop("wall_seconds")["phases"]["collect"]
    assert after.pop("command") == before.pop("command")
    assert after == before


def test_in_a_matrix_a_cut_result_is_made_again_without_being_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [*SMALL, "--agent", "random", "--env", "PointGoal", "--seed", "0", "--seed", "1", "--out", tmp_path]
    whole = shown(capsys, *given)
    path = tmp_path / "PointGoal" / "random--smoke--seed1" / "result.json"
    cut(path, 300)
    assert shown(capsys, *given) == whole
    assert read_result(path).seed == 1


def test_a_result_that_is_none_is_left_alone(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    """Another version's, or one that was edited: that is no damage, and may be the only one there is."""
    counting()
    path = run(tmp_path).folder / "result.json"
    for content in ({"format_version": 99}, {**json.loads(path.read_bytes()), "seed": "one"}):
        path.write_text(json.dumps(content))
        with pytest.raises(CardError, match=r"result\.json: "):
            run(tmp_path, resume=True)
        assert json.loads(path.read_text()) == content


def test_a_cut_result_without_the_last_checkpoint_is_refused(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    folder = run(tmp_path).folder
    cut(folder / "result.json", 100)
    for path in folder.glob("checkpoint-000003.*"):
        path.unlink()
    with pytest.raises(CardError, match=r"result\.json: truncated or not JSON"):
        run(tmp_path, resume=True)


def test_evaluate_falls_back_to_the_older_checkpoint(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str]
) -> None:
    counting()
    folder = run(tmp_path).folder
    shutil.copytree(folder, tmp_path / "older")
    for path in (tmp_path / "older").glob("checkpoint-000003.*"):
        path.unlink()
    expected = evaluate(tmp_path / "older")
    for suffix in (".safetensors", ".json"):
        damaged = tmp_path / f"damaged{suffix}"
        shutil.copytree(folder, damaged)
        cut(damaged / f"checkpoint-000003{suffix}", 50)
        capsys.readouterr()
        np.testing.assert_array_equal(evaluate(damaged).returns, expected.returns)
        notice = capsys.readouterr().err
        assert notice.startswith(f"{damaged}/checkpoint-000003{suffix}: corrupt") and notice.count("\n") == 1
        assert notice.endswith("; falling back to iteration 2\n")
    cut(damaged / "checkpoint-000002.json", 50)
    with pytest.raises(CardError, match=r"checkpoint-000003\.json: corrupt checkpoint"):
        evaluate(damaged)


def test_checkpoints_that_a_run_replaces_while_they_are_read_are_no_damage(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(folder: Path, iteration: int) -> object:
        if iteration == 2:
            for path in older:
                shutil.copy(path, folder)
                (folder / path.name.replace("3", "2", 1)).unlink()
        return load(folder, iteration)

    counting()
    folder, load = run(tmp_path).folder, agent.load_checkpoint
    older = []
    for path in folder.glob("checkpoint-000003.*"):
        older.append(path.rename(tmp_path / path.name))
    capsys.readouterr()
    monkeypatch.setattr(agent, "load_checkpoint", replaced)
    evaluate(folder)
    assert capsys.readouterr().err == ""
