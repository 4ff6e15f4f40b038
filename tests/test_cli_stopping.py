"""The program interrupted, killed, out of disk space, diverging; and resumed."""

from __future__ import annotations

import re
import resource
import signal
import time
from pathlib import Path

from program import PATIENCE, SMOKE, program, started, timeless, wait_for_checkpoint


def test_interrupt_and_terminate(tmp_path: Path) -> None:
    for number, name in ((signal.SIGINT, "int"), (signal.SIGTERM, "term")):
        process = started(*SMOKE, "--out", tmp_path / name, "--set", "schedule.iterations=100000", "--quiet")
        folder = tmp_path / name / "PointGoal" / "dmrlad--smoke--seed0"
        wait_for_checkpoint(folder, process, 2)
        process.send_signal(number)
        _, printed = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130, printed
        assert printed.count("\n") == 1, printed
        saved = re.match(
            r"dmrlad-bench: interrupted: iteration (\d+) is saved in .*; continue with: dmrlad-bench run .* --resume$", printed
        )
        assert saved, printed
        assert (folder / f"checkpoint-{int(saved[1]):06d}.json").exists()


def test_kill_at_any_moment_and_resume(tmp_path: Path) -> None:
    arguments = [*SMOKE, "--set", "schedule.iterations=12", "--set", "schedule.evaluation_interval=4", "--quiet"]
    whole = program(*arguments, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "cut" / "PointGoal" / "dmrlad--smoke--seed0"
    for number, delay in ((1, 0.0), (5, 0.05), (9, 0.1)):
        process = started(*arguments, "--out", tmp_path / "cut", "--resume")
        wait_for_checkpoint(folder, process, number, suffix="")
        time.sleep(delay)
        process.kill()
        process.communicate()
        assert not (folder / "result.json").exists()
    resumed = program(*arguments, "--out", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert timeless(folder) == timeless(tmp_path / "whole" / "PointGoal" / "dmrlad--smoke--seed0")


def test_a_file_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; it strikes whichever thread writes."""
    for limit in (1_000, 30_000):

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        done = program(*SMOKE, "--out", tmp_path / str(limit), "--quiet", preexec_fn=limited)
        assert done.returncode == 1
        assert re.fullmatch(r"dmrlad-bench: error: stopped: .*: File too large; continue with --resume\n", done.stderr), done.stderr


def test_a_diverging_loss_ends_the_run(tmp_path: Path) -> None:
    done = program(*SMOKE, "--out", tmp_path, "--quiet", "--set", "actor_critic.learning_rate=1e30")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.search(r"stopped at environment step \d+: .*loss.*; last checkpoint: .*checkpoint-\d{6}\.json$", done.stderr.strip()), (
        done.stderr
    )
