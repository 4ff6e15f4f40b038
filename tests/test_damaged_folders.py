"""Run folders whose files were cut, changed or made by another version: named, and never half read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from counting_agent import CountingAgent
from counting_runs import ITERATIONS, run, stopped_before_the_end, timeless

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.api import evaluate
from dmrlad_bench.harness.checkpoint import load_checkpoint, save_checkpoint


def test_a_corrupt_replay_is_named(tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    (folder / "replay" / "000001.safetensors").write_bytes(b"half")
    with pytest.raises(CardError, match=r"000001\.safetensors: corrupt or truncated"):
        run(tmp_path, resume=True)


def test_a_corrupt_newest_checkpoint_falls_back_with_a_notice(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    whole = run(tmp_path / "whole").folder
    path = stopped_before_the_end(tmp_path / "cut", monkeypatch) / "checkpoint-000003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    resumed = run(tmp_path / "cut", resume=True).folder
    notice = capsys.readouterr().err.strip()
    assert "checkpoint-000003.safetensors: corrupt or truncated" in notice
    assert notice.endswith("falling back to iteration 2")
    assert timeless(resumed) == timeless(whole)


def test_when_no_checkpoint_is_whole_the_run_stops_with_its_name(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    stopped_before_the_end(tmp_path, monkeypatch)
    for path in tmp_path.rglob("checkpoint-*.json"):
        path.write_text("{")
    with pytest.raises(CardError, match=r"checkpoint-000002\.json: corrupt checkpoint"):
        run(tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"\xff\xfe;\n", b"a;b\n1;2\n", b"iteration\nfirst\n"])
def test_a_progress_table_that_is_none_is_named_and_kept(
    tmp_path: Path,
    counting: Callable[..., list[CountingAgent]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
) -> None:
    counting()
    whole, folder = run(tmp_path / "whole").folder, stopped_before_the_end(tmp_path / "cut", monkeypatch)
    (folder / "progress.csv").write_bytes(content)
    capsys.readouterr()
    assert timeless(run(tmp_path / "cut", resume=True).folder) == timeless(whole)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder / 'progress.csv'}: cannot read line")
    assert "has no row of iterations 1, 2, 3; the file is kept as progress.csv.damaged" in line
    assert (folder / "progress.csv.damaged").read_bytes() == content


def test_a_checkpoint_of_another_shape_is_named(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    state = load_checkpoint(folder, ITERATIONS)
    del state["agent"]["mean"]
    save_checkpoint(folder, ITERATIONS, state)
    (folder / "checkpoint-000002.json").unlink()
    for load in (lambda: run(tmp_path, resume=True), lambda: evaluate(folder)):
        with pytest.raises(CardError, match=r"checkpoint 3 does not fit this version of the program: KeyError: 'mean'"):
            load()
