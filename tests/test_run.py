"""Runs, in process: collection, the loop, the run folder, resuming from every possible point."""

from __future__ import annotations

import csv
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from counting_agent import CountingAgent
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import dmrlad_bench
from dmrlad_bench.agents.interface import Problem, Transition
from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.family import Reference
from dmrlad_bench.envs.family import TaskFamily, family
from dmrlad_bench.harness import train
from dmrlad_bench.harness.api import evaluate, plan
from dmrlad_bench.harness.checkpoint import load_checkpoint, save_checkpoint
from dmrlad_bench.harness.collect import Environments, roll_out
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.run import Run, RunConfig, locked
from dmrlad_bench.harness.train import train_run
from dmrlad_bench.reports.results import result_schema

ITERATIONS = 3
OVERRIDES = (f"schedule.iterations={ITERATIONS}", "schedule.evaluation_interval=2", "schedule.tasks_per_iteration=4")
COMMAND = ["dmrlad-bench", "run", "--agent", "dmrlad"]


class Crash(BaseException):
    """Stands for a kill: nothing in the program catches it."""


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[CountingAgent]]:
    """Runs train a `CountingAgent`; returns the list of those made."""

    def use(**options: Any) -> list[CountingAgent]:
        made: list[CountingAgent] = []

        def build(config: Any, problem: Problem, seed: np.random.SeedSequence, device: str) -> CountingAgent:
            made.append(CountingAgent(problem, seed, **options))
            return made[-1]

        monkeypatch.setattr("dmrlad_bench.agents.build.build_agent", build)
        return made

    return use


def planned(out: Path, *overrides: str, **options: Any) -> tuple[RunConfig, Path]:
    options = {"budget": "smoke", "device": "cpu", "threads": 1} | options
    return plan("dmrlad", "PointGoal", out=out, overrides=(*OVERRIDES, *overrides), **options)


def run(out: Path, *overrides: str, resume: bool = False, **options: Any) -> Run:
    config, folder = planned(out, *overrides, resume=resume, **options)
    return train_run(config, folder, resume=resume, command=COMMAND, quiet=True)


def timeless(folder: Path) -> dict[str, Any]:
    """The content of `result.json` apart from times."""
    content = json.loads((folder / "result.json").read_bytes())
    del content["wall_seconds"]
    for point in content["curve"]:
        del point["seconds"]
    return content


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "progress.csv").open() as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def stopped_before_the_end(out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was killed after its last iteration."""

    def crash(_: Any) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(train._Session, "_finish", crash)
        run(out)
    return planned(out)[1]


def test_roll_out_records_what_was_lived() -> None:
    solved = family("PointGoal")
    problem = Problem(2, 2, solved.horizon, 3, solved.tasks("train"), solved.reward, solved.outcome_dim, 2, True)
    agent = CountingAgent(problem, np.random.SeedSequence(0))
    environments = Environments(solved, False, 1)
    chosen = np.array([5, 0, 5])
    rolled = roll_out(
        environments,
        agent,
        "train",
        chosen,
        episodes=2,
        generator=np.random.default_rng(0),
        deterministic=False,
        training_iteration=4,
        keep=True,
    )
    environments.close()
    trials = rolled.trials
    assert trials is not None
    assert [call for call in agent.calls if call != "observe"] == ["begin_training_trial 4", "begin_episode", "begin_episode"]
    assert trials.steps == rolled.steps == 3 * 2 * solved.horizon
    np.testing.assert_array_equal(trials.task_index, chosen)
    np.testing.assert_array_equal(trials.episode[0], np.repeat([0, 1], solved.horizon))
    np.testing.assert_allclose(trials.reward.reshape(3, 2, -1).sum(axis=2), rolled.returns, atol=1e-4)
    tasks = solved.tasks("train")[chosen][:, None]
    np.testing.assert_allclose(solved.reward(trials.outcome, tasks), trials.reward, atol=1e-6)
    within = trials.episode[:, 1:] == trials.episode[:, :-1]
    np.testing.assert_array_equal(trials.observation[:, 1:][within], trials.next_observation[:, :-1][within])
    assert not np.array_equal(trials.observation[0], trials.observation[2])  # the same task, but not the same trial


class EarlyEnd:
    """A vector environment of two rows: row 0 terminates after 1 step of the first episode and 3 of the second, row 1 never."""

    def __init__(self) -> None:
        self.episode, self.step_number = -1, 0

    def reset(self, seed: list[int], options: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
        self.episode, self.step_number = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.step_number += 1
        terminated = np.array([self.step_number >= (1, 3)[self.episode], False])
        reward = np.array([1.0, 10.0]) * self.step_number
        info = {"outcome": np.zeros((2, 1), dtype=np.float32), "success": np.array([True, True])}
        return self._observation(), reward, terminated, np.full(2, self.step_number == 4), info

    def _observation(self) -> np.ndarray:
        return np.array([[self.episode, self.step_number], [self.episode, self.step_number]], dtype=float)


def test_rows_whose_episode_ended_are_ignored() -> None:
    class Family:
        horizon, observation_dim, action_dim, outcome_dim, task_dim = 4, 2, 1, 1, 1

        @staticmethod
        def episode_success(flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            return flags.sum(axis=1) == lengths

    class Early(Environments):
        def __init__(self) -> None:
            self.family: Any = Family()
            self.task_observable = False
            self.environment = EarlyEnd()

        def get(self, split: str, num_envs: int) -> Any:
            return self.environment

    class Watcher:
        def __init__(self) -> None:
            self.active: list[list[bool]] = []

        def begin_trial(self, num_envs: int) -> None: ...

        def act(self, observation: np.ndarray, deterministic: bool) -> np.ndarray:
            return np.zeros((2, 1))

        def observe(self, transition: Transition) -> None:
            self.active.append(transition.active.tolist())

    watcher, generator = Watcher(), np.random.default_rng(0)
    rolled = roll_out(Early(), watcher, "train", np.array([0, 1]), episodes=2, generator=generator, deterministic=True, keep=True)
    np.testing.assert_array_equal(rolled.lengths, [[1, 3], [4, 4]])
    np.testing.assert_array_equal(rolled.returns, [[1.0, 6.0], [100.0, 100.0]])
    assert rolled.success.all()
    assert [active for active, _ in watcher.active] == [True, False, False, False, True, True, True, False]
    assert rolled.trials is not None
    np.testing.assert_array_equal(rolled.trials.length, [4, 8])
    np.testing.assert_array_equal(rolled.trials.reward[0], [1, 1, 2, 3, 0, 0, 0, 0])
    np.testing.assert_array_equal(rolled.trials.terminated[0], [True, False, False, True, False, False, False, False])
    np.testing.assert_array_equal(rolled.trials.episode[0, :4], [0, 1, 1, 1])


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
    assert table[0]["eval/test_return_3"] == ""
    assert float(table[1]["eval/test_return_3"]) < 0
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
    scalars = events.Scalars("eval/test_return_3")
    expected = [row for row in rows(folder) if row["eval/test_return_3"]]
    assert [event.step for event in scalars] == [int(row["environment_steps"]) for row in expected]
    np.testing.assert_allclose([event.value for event in scalars], [float(row["eval/test_return_3"]) for row in expected], rtol=1e-5)


def test_same_seed_same_result_and_another_seed_another(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    first, second, third = run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", seed=1)
    assert timeless(first.folder) == timeless(second.folder)
    assert rows(first.folder) == rows(second.folder)
    assert timeless(first.folder)["final"] != timeless(third.folder)["final"]


def test_evaluating_more_often_changes_nothing_else(tmp_path: Path) -> None:
    seldom, often = run(tmp_path / "a"), run(tmp_path / "b", "schedule.evaluation_interval=1")
    assert timeless(seldom.folder)["final"] == timeless(often.folder)["final"]


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


def test_another_configuration_is_not_resumed(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    run(tmp_path)
    with pytest.raises(CardError, match=r"key 'agent.schedule.iterations' is 3 there, asked for 5"):
        run(tmp_path, "schedule.iterations=5", resume=True)
    with pytest.raises(CardError, match=r"key 'threads' is 1 there, asked for 2"):
        run(tmp_path, resume=True, threads=2)
    assert planned(tmp_path, resume=True, threads=None)[0].threads == 1  # what is not asked for is taken from the folder


def test_prose_and_reference_scores_may_differ_on_resume(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    config, _ = planned(tmp_path, resume=True)
    agent = config.agent.model_copy(update={"description": "said better"})
    card = config.family.model_copy(update={"description": "said better", "reference": Reference(random=-2.0, oracle=-1.0)})
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
    score = train.score

    def broken(*arguments: Any, **options: Any) -> Any:
        scores = score(*arguments, **options)
        scores.returns[0, 0] = np.nan
        return scores

    monkeypatch.setattr(train, "score", broken)
    with pytest.raises(RunFailed, match=r"a return of the evaluation in iteration 2, split 'test' is not finite"):
        run(tmp_path)


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


def test_a_progress_table_that_was_changed_is_named(
    tmp_path: Path, counting: Callable[..., list[CountingAgent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    counting()
    folder = stopped_before_the_end(tmp_path, monkeypatch)
    for content in (b"\xff\xfe;\n", b"a;b\n1;2\n", b"iteration\nfirst\n"):
        (folder / "progress.csv").write_bytes(content)
        with pytest.raises(CardError, match=r"progress\.csv: not the table that a run writes"):
            run(tmp_path, resume=True)


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


def test_references_make_normalised_scores(tmp_path: Path, counting: Callable[..., list[CountingAgent]]) -> None:
    counting()
    assert run(tmp_path / "without").result.final[0].normalised is None
    config, folder = planned(tmp_path / "with")
    card = config.family.model_copy(update={"reference": Reference(random=-40.0, oracle=-8.0)})
    train_run(config.model_copy(update={"family": card}), folder, resume=False, command=COMMAND, quiet=True)
    content = json.loads((folder / "result.json").read_bytes())
    assert content["family"]["reference"] == [-40.0, -8.0]
    for matrix in content["final"]:
        np.testing.assert_allclose(matrix["normalised"], (np.array(matrix["returns"]) + 40.0) / 32.0)
    again = evaluate(folder, threads=1).normalised
    assert again is not None
    np.testing.assert_array_equal(again, content["final"][0]["normalised"])


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


def test_an_agent_without_learn_is_scored_only(tmp_path: Path) -> None:
    config, folder = plan("random", "PointGoal", out=tmp_path, budget="smoke", device="cpu", threads=1)
    result = train_run(config, folder, resume=False, command=COMMAND, quiet=True).result
    assert (result.environment_steps, result.iterations, len(result.curve)) == (0, 0, 1)
    assert isinstance(TaskFamily(Run(folder).config.family), TaskFamily)


def _interrupt_in_second(agent: CountingAgent, trials: Any) -> dict[str, float]:
    if agent.replay:
        raise KeyboardInterrupt
    return _learn(agent, trials)


_learn = CountingAgent.learn
