"""Several runs in one command: one after another, side by side, stopped, killed, and again."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from program import PATIENCE, PROGRAM, SMOKE, refused, shown, started, timeless, wait_for_checkpoint

from dmrlad_bench.agents.turns import taking_turns
from dmrlad_bench.cli import main
from dmrlad_bench.harness import session
from dmrlad_bench.harness.api import plan
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.matrix import Options, train_all
from dmrlad_bench.harness.run import locked
from dmrlad_bench.reports.results import Result


def test_all_is_checked_before_anything_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = tmp_path / "PointGoalSparse" / "random--quick--seed0"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("keep")
    message = refused(capsys, "run", "--agent", "random", "--env", "PointGoal", "--env", "PointGoalSparse", "--out", tmp_path)
    assert f"{taken}: exists and is not empty; pass --resume" in message
    assert [path.name for path in tmp_path.iterdir()] == ["PointGoalSparse"]
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


def test_the_matrix_runs_one_after_another_and_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "random", "--env", "PointGoal", "--env", "PointGoalSparse", "--seed", "3", "--seed", "4", "--quiet"]
    arguments += ["--threads", "1", "--device", "cpu", "--out", str(tmp_path)]
    first = shown(capsys, *arguments)
    for name in ("PointGoal", "PointGoalSparse"):
        for seed in (3, 4):
            assert (tmp_path / name / f"random--quick--seed{seed}" / "result.json").exists()
    assert first.startswith("all runs")  # one table, at the end
    assert first.count("┏") == 1
    assert first.endswith(f"run folders: {tmp_path}\n")
    found = [(name, seed) for name, seed in re.findall(r"random *│ DMRLAD/(\w+)-v0 *│ quick *│ standard *│ *(\d+) │", first)]
    assert found == [(name, seed) for name in ("PointGoal", "PointGoalSparse") for seed in ("3", "4")]
    assert shown(capsys, *arguments, "--resume") == first  # finished runs are shown again


@pytest.mark.parametrize("how", [[], ["--pack"]])
def test_a_run_that_fails_does_not_keep_the_others_from_running(capsys: pytest.CaptureFixture[str], tmp_path: Path, how: list[str]) -> None:
    arguments = ["run", "--agent", "dmrlad", "--agent", "random", *SMOKE[3:], "--quiet", "--out", str(tmp_path), *how]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--set", "actor_critic.learning_rate=1e30"])
    printed = capsys.readouterr()
    assert caught.value.code == 1
    assert printed.err.count("\n") == 1, printed.err
    assert re.match(r"dmrlad-bench: error: stopped at environment step .*/dmrlad--smoke--seed0/checkpoint-\d{6}\.json$", printed.err)
    assert printed.out.startswith("all runs")
    assert re.findall(r"^│ (\w+) +│ DMRLAD", printed.out, re.MULTILINE) == ["random"]


@pytest.mark.parametrize("rate", ["1e-3", "1e30"], ids=["finished", "diverged"])
def test_nothing_of_a_run_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, rate: str) -> None:
    """Its replay would lie beside the next run's, even where the error that it ended with is kept."""
    agents: list[weakref.ref[Any]] = []

    def make_agent(*arguments: Any) -> Any:
        agent: Any = plain(*arguments)
        agent.itself = agent  # as an update that is recorded on a GPU does
        agents.append(weakref.ref(agent))
        return agent

    plain = session.make_agent
    monkeypatch.setattr(session, "make_agent", make_agent)
    config, folder = plan("dmrlad", "PointGoal", budget="smoke", device="cpu", threads=1, out=tmp_path, overrides=[LEARNING_RATE + rate])
    gc.disable()
    request.addfinalizer(gc.enable)
    outcomes = list(train_all({folder: config}, 1, Options(resume=False, command=["test"], quiet=True, pack=False)))
    assert isinstance(outcomes[0][1], Result if rate == "1e-3" else RunFailed)
    assert [agent() for agent in agents] == [None]


def test_an_interrupt_stops_the_whole_matrix(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail_then_interrupt(config: Any, folder: Path, **_: Any) -> None:
        asked.append(config.seed)
        if config.seed == 0:
            raise RunFailed(f"{folder}: stopped")
        raise Interrupted("interrupted: nothing is saved yet")

    monkeypatch.setattr("dmrlad_bench.harness.train.train_run", fail_then_interrupt)
    with pytest.raises(SystemExit) as caught:
        main([*SMOKE, "--out", str(tmp_path), "--seed", "0", "--seed", "1", "--seed", "2"])
    assert (caught.value.code, asked) == (130, [0, 1])
    announced, failed, interrupted = capsys.readouterr().err.splitlines()
    assert announced.startswith("3 runs: budget smoke")
    assert failed == f"dmrlad-bench: error: {tmp_path}/PointGoal/dmrlad--smoke--seed0: stopped"
    assert interrupted == "dmrlad-bench: interrupted: nothing is saved yet"


LEARNING_RATE = "actor_critic.learning_rate="
MATRIX = ["run", "--agent", "dmrlad", "--env", "PointGoal", "--seed", "0", "--seed", "1", *SMOKE[5:]]
SLOW = ["--set", "schedule.iterations=100000", "--jobs", "2"]


def folders_of(out: Path, seeds: int = 2) -> list[Path]:
    return [out / "PointGoal" / f"dmrlad--smoke--seed{seed}" for seed in range(seeds)]


def test_side_by_side_gives_what_one_after_another_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A third seed has finished before in one of the two folders; it is taken as it is, without --resume."""
    one = shown(capsys, *MATRIX, "--seed", "2", "--quiet", "--out", tmp_path / "one")
    before, taken = (folders_of(tmp_path / name, 3)[2] for name in ("one", "two"))
    shutil.copytree(before, taken)
    times = {path: path.stat().st_mtime_ns for path in taken.iterdir() if path.name != "run.lock"}
    with pytest.raises(SystemExit) as caught:
        main([*MATRIX, "--seed", "2", "--out", str(tmp_path / "two"), "--jobs", "2"])
    two = capsys.readouterr()
    assert caught.value.code == 0, two.err
    assert two.err.startswith(f"{taken}: finished before, taken as it is\n")
    for alone, together in zip(folders_of(tmp_path / "one"), folders_of(tmp_path / "two"), strict=True):
        assert timeless(alone) == timeless(together)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    tables = [printed[: printed.index("run folders: ")] for printed in (one, two.out)]
    assert tables[0] == tables[1]
    assert re.findall(r"│ smoke *│ standard *│ *(\d) │", tables[0]) == ["0", "1", "2"]


@pytest.mark.parametrize("turns", [nullcontext, taking_turns], ids=["all at once", "in turns"])
def test_packed_gives_what_one_after_another_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], turns: Callable[[], AbstractContextManager[object]]
) -> None:
    """Two threads each, so that the runs share the simulator's, and torch's thread count is more than a default."""
    given = [*MATRIX, "--agent", "random", "--threads", "2"]
    one = shown(capsys, *given, "--quiet", "--out", tmp_path / "one")
    with turns():  # which a GPU's runs take
        two = shown(capsys, *given, "--quiet", "--out", tmp_path / "two", "--pack")
    for alone, together in zip(folders_of(tmp_path / "one"), folders_of(tmp_path / "two"), strict=True):
        assert timeless(alone) == timeless(together)
    assert one[: one.index("run folders: ")] == two[: two.index("run folders: ")]


def test_an_interrupt_stops_all_that_are_packed_and_they_continue_to_the_same_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = ["--set", "schedule.iterations=25"]
    process = started(*MATRIX, *longer, "--pack", "--out", tmp_path / "two")
    for folder in folders_of(tmp_path / "two"):
        wait_for_checkpoint(folder, process)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, complaint
    lines = [line for line in complaint.splitlines() if line.startswith("dmrlad-bench: interrupted: iteration")]
    assert len(lines) == 2, complaint
    shown(capsys, *MATRIX, *longer, "--pack", "--resume", "--quiet", "--out", tmp_path / "two")
    shown(capsys, *MATRIX, *longer, "--quiet", "--out", tmp_path / "one")
    for alone, together in zip(folders_of(tmp_path / "one"), folders_of(tmp_path / "two"), strict=True):
        assert timeless(alone) == timeless(together)


def test_packing_and_processes_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, *MATRIX, "--pack", "--jobs", "2", "--out", tmp_path)
    assert "pack: all runs share one process, so jobs must be 1, got 2" in message


def test_cores_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmrlad_bench.harness.threads.available_cores", lambda: 7)
    asked: dict[int, tuple[int, int]] = {}

    def note(plans: dict[Path, Any], jobs: int, options: Any) -> Iterator[Any]:
        config = next(iter(plans.values()))
        asked[jobs] = config.threads, config.simulation_threads
        return iter(())

    monkeypatch.setattr("dmrlad_bench.harness.matrix.train_all", note)
    for jobs in ("1", "2", "9"):
        with pytest.raises(SystemExit):
            main(
                [
                    "run",
                    "--agent",
                    "random",
                    "--seed",
                    "0",
                    "--seed",
                    "1",
                    "--seed",
                    "2",
                    "--out",
                    str(tmp_path),
                    "--jobs",
                    jobs,
                    "--budget",
                    "full",
                ]
            )
    assert asked == {1: (7, 7), 2: (3, 3), 3: (2, 2)}  # never more processes than runs


def test_a_finished_run_of_another_configuration_is_not_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["run", "--agent", "random", "--env", "PointGoal", "--quiet", "--out", str(tmp_path), "--threads", "1"]
    shown(capsys, *arguments)
    message = refused(capsys, *arguments, "--seed", "0", "--seed", "1", "--set", "schedule.iterations=7")
    assert "key 'agent.schedule.iterations' is 501 there, asked for 7" in message
    with pytest.raises(SystemExit) as caught:
        main([part for part in arguments if part != "--quiet"] + ["--seed", "0", "--seed", "1"])
    printed = capsys.readouterr()
    assert caught.value.code == 0
    assert f"{tmp_path}/PointGoal/random--quick--seed0: finished before, taken as it is\n" in printed.err
    assert "exists and is not empty; pass --resume" in refused(capsys, *arguments)


def test_an_interrupt_stops_all_workers_and_a_killed_one_is_a_failed_run(tmp_path: Path) -> None:
    """Ctrl-C in a terminal, which reaches the workers as well as the program."""
    command = [*PROGRAM, *MATRIX, *SLOW, "--quiet", "--seed", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    folders = folders_of(tmp_path, 3)
    for folder in folders[:2]:
        wait_for_checkpoint(folder, process)
    os.kill(workers_of(process, 2)[0], signal.SIGKILL)
    wait_for_checkpoint(folders[2], process)  # the others go on, and the next one takes its place
    os.killpg(process.pid, signal.SIGINT)
    printed, complaint = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed) == (130, ""), complaint
    killed, *interrupted = complaint.splitlines()
    why = "the run's process was killed by SIGKILL (out of memory?); continue with --resume"
    assert killed in {f"dmrlad-bench: error: {folder}: {why}" for folder in folders[:2]}
    assert len(interrupted) == 2
    for line in interrupted:
        saved = re.match(r"dmrlad-bench: interrupted: iteration (\d+) is saved in (.*); continue with: dmrlad-bench run .* --resume$", line)
        assert saved, line
        assert Path(saved[2], f"checkpoint-{int(saved[1]):06d}.json").exists()
    for folder in folders:
        with locked(folder):  # nobody holds it any more
            pass


def test_a_signal_while_the_workers_start(tmp_path: Path) -> None:
    process = started(*MATRIX, *SLOW, "--quiet", "--out", tmp_path)
    workers = workers_of(process, 2)
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, complaint
    assert [line[:26] for line in complaint.splitlines()] == 2 * ["dmrlad-bench: interrupted:"], complaint
    assert not any(map(alive, workers))


def test_where_the_program_is_killed_its_workers_stop(tmp_path: Path) -> None:
    process = started(*MATRIX, *SLOW, "--quiet", "--out", tmp_path)
    for folder in folders_of(tmp_path):
        wait_for_checkpoint(folder, process)
    workers = workers_of(process, 2)
    process.kill()
    process.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_failures_among_workers_are_reported_at_the_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = ["run", "--agent", "dmrlad", "--agent", "random", *SMOKE[3:], "--out", str(tmp_path), "--jobs", "2"]
    with pytest.raises(SystemExit) as caught:
        main([*given, "--set", "actor_critic.learning_rate=1e30"])
    printed = capfd.readouterr()
    assert caught.value.code == 1
    last = printed.err.splitlines()[-1]
    assert re.match(r"dmrlad-bench: error: stopped at environment step .*/dmrlad--smoke--seed0/checkpoint-\d{6}\.json$", last), printed.err
    assert "PointGoal random seed 0: final scores" in printed.err  # progress lines say whose they are
    ended = f"{tmp_path}/PointGoal/random--smoke--seed0: finished after "
    assert [line.startswith(ended) for line in printed.err.splitlines() if ": finished after " in line] == [True]
    assert printed.out.startswith("all runs")
    assert re.findall(r"^│ (\w+) +│ DMRLAD", printed.out, re.MULTILINE) == ["random"]


def workers_of(process: subprocess.Popen[str], count: int) -> list[int]:
    """The process ids of the workers, as soon as there are so many; a tracker of multiprocessing is none of them."""
    while True:
        assert process.poll() is None, process.communicate()[1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [int(child) for child in children if "spawn_main" in command_line(int(child))]
        if len(workers) == count:
            return workers
        time.sleep(0.01)


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
