"""Runs that stop before their end, and what happens when they are resumed from every possible point."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting_agent import CountingAgent
from counting_runs import COMMAND, Crash, planned, rows, run, stopped_before_the_end, timeless

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.family import Reference
from dmrlad_bench.harness import session
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.train import train_run


def test_a_run_killed_at_any_write_and_resumed_is_the_uninterrupted_run(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    whole = run(tmp_path / "whole").folder
    replace = Path.replace
    for number in range(100):
        writes = 0
        for moment in ("before", "after"):

            def crash(path: Path, target: Path, moment: str = moment, number: int = number) -> Path:
                nonlocal writes
                writes += 1
                if moment == "before" and writes == number + 1:
                    raise Crash
                replaced = replace(path, target)
                if moment == "after" and writes == number + 1:
                    raise Crash
                return replaced

            writes, out = 0, tmp_path / f"{number}-{moment}"
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", crash)
                try:
                    run(out)
                except Crash:
                    pass
                else:
                    assert number > 10  # configuration, first checkpoint, and three files an iteration
                    return
            resumed = run(out, resume=True).folder
            assert timeless(resumed) == timeless(whole)
            assert rows(resumed) == rows(whole)
    raise AssertionError("the run never got to its end")


def test_half_written_rows_and_files_are_not_read(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    whole, folder = run(tmp_path / "whole").folder, stopped_before_the_end(tmp_path / "cut", monkeypatch)
    for path in folder.glob("checkpoint-000003*"):
        path.unlink()
    with (folder / "progress.csv").open("a") as file:
        file.write("4,99999,")
    for name in ("checkpoint-000003.json.partial", "replay/000003.safetensors"):
        (folder / name).write_bytes(b"half")
    run(tmp_path / "cut", resume=True)
    assert timeless(folder) == timeless(whole)
    assert rows(folder) == rows(whole)
    assert not list(folder.glob("*.partial"))


def test_another_configuration_is_not_resumed(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    run(tmp_path)
    with pytest.raises(CardError, match=r"key 'agent.schedule.iterations' is 3 there, asked for 5"):
        run(tmp_path, "schedule.iterations=5", resume=True)
    assert planned(tmp_path, resume=True, threads=None)[0].threads == 1  # what is not asked for is taken from the folder


def test_prose_and_reference_scores_may_differ_on_resume(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    config, _ = planned(tmp_path, resume=True)
    agent = config.agent.model_copy(update={"description": "said better"})
    card = config.family.model_copy(update={"description": "said better", "reference": Reference(random=-2.0, blind=-2.0, oracle=-1.0)})
    changed = config.model_copy(update={"agent": agent, "family": card})
    resumed = train_run(changed, folder, resume=True, command=COMMAND, quiet=True)
    assert resumed.config == config  # a folder stays of one piece: what it records is what its result is made with
    assert resumed.result.family.reference is None


def test_interruption_names_what_is_saved(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    with monkeypatch.context() as patch:
        patch.setattr(CountingAgent, "learn", _interrupt_in_second)
        with pytest.raises(
            Interrupted, match=r"interrupted: iteration 1 is saved in .*; continue with: dmrlad-bench run --agent dmrlad --resume"
        ):
            run(tmp_path / "cut")
    assert timeless(run(tmp_path / "cut", resume=True).folder) == timeless(run(tmp_path / "whole").folder)


def _interrupt_in_second(agent: CountingAgent, trials: Any) -> dict[str, float]:
    if agent.replay:
        raise KeyboardInterrupt
    return _learn(agent, trials)


_learn = CountingAgent.learn


def test_divergence_names_step_loss_and_checkpoint(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting(diverge_at=2)
    steps = 80 * 120 + 4 * 60
    with pytest.raises(RunFailed, match=rf"environment step {steps}: the critic loss is nan .*last checkpoint: .*checkpoint-000001\.json"):
        run(tmp_path)


@pytest.mark.parametrize("number", [0, 1, 3, 6])
def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    counting()
    fsync, written = os.fsync, 0

    def full(file: int) -> None:
        nonlocal written
        written += 1
        if written > number:
            raise OSError(28, "No space left on device")
        fsync(file)

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match=r"^stopped: .*: No space left on device; continue with --resume$"):
        patch.setattr("os.fsync", full)
        run(tmp_path / "cut")
    assert not list(tmp_path.rglob("*.partial"))
    assert timeless(run(tmp_path / "cut", resume=True).folder) == timeless(run(tmp_path / "whole").folder)


def test_a_return_that_is_not_finite_fails_the_run(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    score = session.score

    def broken(*arguments: Any, **options: Any) -> Any:
        scores = score(*arguments, **options)
        scores.trial_returns[0, 0, 0] = np.nan
        return scores

    monkeypatch.setattr(session, "score", broken)
    with pytest.raises(RunFailed, match=r"a return of the evaluation in iteration 2, split 'validation' is not finite"):
        run(tmp_path)
