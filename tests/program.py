"""The program as a user calls it: in a process of its own, or in this one where no process is needed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dmrlad_bench.cli import main

PROGRAM = [sys.executable, "-m", "dmrlad_bench"]
SMOKE = ["run", "--agent", "dmrlad", "--env", "PointGoal", "--budget", "smoke", "--device", "cpu", "--threads", "1"]
PATIENCE = 300.0


def program(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE, **options
    )


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str], at_least: int = 1, suffix: str = ".json") -> None:
    """Wait until the process has written the checkpoint of iteration `at_least`, or of a later one: a run keeps only the newest two."""
    deadline = time.monotonic() + PATIENCE
    while not any(int(path.name.split(".")[0].removeprefix("checkpoint-")) >= at_least for path in folder.glob(f"checkpoint-*{suffix}")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"no checkpoint from iteration {at_least} on came to {folder}"
        time.sleep(0.01)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Call the program in this process; it must exit with 2 and one line, which is returned."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 2, printed.err
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("dmrlad-bench: error: ")
    return printed.err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Call the program in this process; it must succeed. Returns standard output."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 0, printed.err
    return printed.out


def timeless(folder: Path) -> dict[str, Any]:
    """The content of `result.json` apart from times and the command."""
    content = json.loads((folder / "result.json").read_bytes())
    del content["wall_seconds"], content["command"]
    for point in content["curve"]:
        del point["seconds"]
    return content
