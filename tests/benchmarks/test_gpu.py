"""Updates and whole runs on a GPU; skipped where torch sees none.

Milliseconds are medians over blocks of updates, with the device synchronised before each reading of the clock and after a warm-up in
which the graphs are recorded. "Eager" is the same update one operation after the other, in the same process. Targets on an H200: 0.5 ms
for a policy update, 0.25 ms for a reconstruction update, four packed seeds in 1.6 times the time of one.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from reference_sizes import reference_agent, report

from dmrlad_bench.agents.graphs import in_blocks
from dmrlad_bench.harness.machine import torch_settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
WARM_UP, BLOCK, ROUNDS, TRIALS = 20, 200, 9, 200
GPU = torch.device("cuda")


def milliseconds(update: Callable[[], object]) -> float:
    """Median milliseconds of a call, over blocks of calls."""
    taken = []
    for _ in range(WARM_UP):
        update()
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(BLOCK):
            update()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / BLOCK * 1000


def busy_share(update: Callable[[], object]) -> float:
    """The share of wall time in which kernels ran."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(BLOCK):
            update()
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / wall


@pytest.mark.parametrize("kind", ["policy", "reconstruction"])
def test_update(benchmark, kind: str) -> None:
    with torch_settings(torch.get_num_threads(), "cuda"):
        taken, busy = {}, 0.0
        for way in ("graph", "eager"):
            agent = reference_agent(TRIALS, device="cuda")
            learner, inference, replay, generator = agent.learner, agent.inference, agent.replay, agent.generator
            assert inference is not None
            if way == "eager":
                learner._graphed = inference._graphed = None
            if kind == "policy":
                batches = in_blocks(lambda count, replay=replay, drawn=generator: replay.batch(count, False, drawn), 256, GPU)
                update = lambda: learner.update(next(batches), generator)  # noqa: B023, E731
            else:
                segments = in_blocks(
                    lambda count, replay=replay, drawn=generator: replay.segments(count, 16, 10, False, False, drawn), 16, GPU
                )
                step = inference.update
                update = lambda: step(next(segments), generator)  # noqa: B023, E731
            taken[way] = milliseconds(update)
            if way == "graph":
                assert not agent.notices, agent.notices
                busy = busy_share(update)
    report(benchmark, taken["graph"] / 1000, milliseconds=taken["graph"], share_of_eager=taken["graph"] / taken["eager"], busy_share=busy)


def test_four_packed_seeds(benchmark, tmp_path: Path) -> None:
    """Seconds of whole iterations, the slowest seed's; start-up, scoring and saving are not counted."""
    phases = ("collect", "relabel", "reconstruct", "re-infer", "improve")

    def results(name: str, seeds: int) -> list[dict]:
        given = ["run", "--agent", "dmrlad", "--budget", "full", "--device", "cuda", "--quiet", "--pack", "--out", str(tmp_path / name)]
        given += ["--set", "schedule.iterations=8", "--set", "schedule.evaluation_interval=8"]
        given += itertools.chain.from_iterable(("--seed", str(seed)) for seed in range(seeds))
        subprocess.run([sys.executable, "-m", "dmrlad_bench", *given], check=True)
        folder = tmp_path / name / "CheetahVelSparse"
        return [json.loads((folder / f"dmrlad--full--seed{seed}" / "result.json").read_text()) for seed in range(seeds)]

    (alone,), packed = results("one", 1), results("four", 4)
    assert alone["final"] == packed[0]["final"]
    one, *four = (sum(result["wall_seconds"]["phases"][phase] for phase in phases) for result in (alone, *packed))
    report(benchmark, max(four), times_one_seed=max(four) / one)
