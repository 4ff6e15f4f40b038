"""Scoring runs and agent objects by the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from counting_agent import CountingAgent
from counting_runs import COMMAND, ITERATIONS, planned, run

from dmrlad_bench.agents.interface import Transition
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.family import Reference
from dmrlad_bench.envs.family import family
from dmrlad_bench.harness.api import evaluate
from dmrlad_bench.harness.checkpoint import load_checkpoint, save_checkpoint
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.train import train_run


def test_evaluate_gives_the_final_scores_again(tmp_path: Path) -> None:
    finished = run(tmp_path)
    for split, deterministic in (("test", True), ("ood", True), ("test", False)):
        again = evaluate(finished, split=split, deterministic=deterministic, threads=1)
        np.testing.assert_array_equal(again.returns, finished.result.scores(split, deterministic).returns)
    assert evaluate(finished.folder, episodes=1, threads=1).returns.shape == (20, 1)
    assert evaluate(str(finished.folder), "PointGoalSparse", threads=1).returns.shape == (20, 3)
    with pytest.raises(CardError, match="other sizes"):
        evaluate(finished, "CheetahVel")
    with pytest.raises(CardError, match=r"no split 'tets' \(did you mean 'test'\?\)"):
        evaluate(finished, split="tets")


def test_a_run_of_a_gpu_is_scored_on_the_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    finished = run(tmp_path)
    path = finished.folder / "config.toml"
    path.write_text(path.read_text().replace('device = "cpu"', 'device = "cuda"'))
    state = load_checkpoint(finished.folder, ITERATIONS)
    state["agent"]["generator"] = torch.zeros(16, dtype=torch.uint8)  # the size of a CUDA generator's state
    save_checkpoint(finished.folder, ITERATIONS, state)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    capsys.readouterr()
    scores = evaluate(finished)
    notice = capsys.readouterr().err
    assert notice == f"{finished.folder}: ran on cuda, which torch does not see here; scored on the cpu, where last digits may differ\n"
    np.testing.assert_array_equal(scores.returns, finished.result.scores().returns)


def test_threads_are_torchs_too_and_by_default_the_runs(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    used: set[int] = set()
    act = CountingAgent.act

    def watched(agent: CountingAgent, observation: np.ndarray, deterministic: bool) -> np.ndarray:
        used.add(torch.get_num_threads())
        return act(agent, observation, deterministic)

    monkeypatch.setattr(CountingAgent, "act", watched)
    before = torch.get_num_threads()
    finished = run(tmp_path, threads=2)
    assert used == {2}
    evaluate(finished)
    assert used == {2}
    evaluate(finished, threads=3)
    assert used == {2, 3}
    assert torch.get_num_threads() == before
    with pytest.raises(CardError, match="threads: expected at least 1, got 0"):
        evaluate(finished, threads=0)


def test_products_use_tf32_on_a_gpu_and_afterwards_what_they_used_before() -> None:
    matmul = torch.backends.cuda.matmul
    assert not matmul.allow_tf32
    with torch_settings(1, "cpu"):
        assert not matmul.allow_tf32
    with pytest.raises(ZeroDivisionError), torch_settings(1, "cuda"):
        assert matmul.allow_tf32
        raise ZeroDivisionError
    assert not matmul.allow_tf32


def test_references_make_normalised_scores(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    assert run(tmp_path / "without").result.scores().normalised is None
    config, folder = planned(tmp_path / "with")
    card = config.family.model_copy(update={"reference": Reference(random=-45.0, blind=-40.0, oracle=-8.0)})
    train_run(config.model_copy(update={"family": card}), folder, resume=False, command=COMMAND, quiet=True)
    content = json.loads((folder / "result.json").read_bytes())
    assert content["family"]["reference"] == [-40.0, -8.0]
    returns = np.array(content["final"][0]["returns"])
    scores = evaluate(folder, threads=1)
    assert scores.normalised is not None
    np.testing.assert_allclose(scores.normalised, (returns.mean(1) + 40.0) / 32.0)
    assert scores.regret == pytest.approx((-8.0 - returns.mean(1)).sum(-1).mean())


def test_anyones_agent_is_scored() -> None:
    class Still:
        def begin_trial(self, num_envs: int) -> None:
            self.num_envs = num_envs

        def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
            assert observation.shape == (self.num_envs, 2)
            return np.zeros((self.num_envs, 2))

        def observe(self, transition: Transition) -> None: ...

    scores = evaluate(Still(), "PointGoal", "ood", episodes=2, threads=1)
    assert scores.returns.shape == (len(family("PointGoal").tasks("ood")), 2)
    assert not scores.success.any()
    with pytest.raises(CardError, match="agent dict: has no begin_trial, act, observe"):
        evaluate({}, "PointGoal")  # pyright: ignore[reportArgumentType]
