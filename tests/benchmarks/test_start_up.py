"""Seconds until the package is imported and until `--help` has printed, each in a fresh interpreter, beside an empty one's."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import pytest
from reference_sizes import report

WORK = {
    "import": ["-c", "import dmrlad_bench, sys; assert 'torch' not in sys.modules"],
    "help": ["-m", "dmrlad_bench", "--help"],
    "nothing": ["-c", ""],
}


def seconds(name: str) -> tuple[float, float]:
    """Processor and wall seconds of one process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *WORK[name]], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - began


@pytest.mark.parametrize("name", ["import", "help"])
def test_start_up(benchmark, name: str) -> None:
    ours, nothing = (min(seconds(one) for _ in range(3)) for one in (name, "nothing"))
    report(benchmark, ours[0], wall_seconds=ours[1], times_an_empty_interpreter=ours[0] / nothing[0])
