"""Fixtures that several files of tests share, and how many processes run them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: tests side by side have a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from counting_agent import CountingAgent

from dmrlad_bench.agents.interface import Problem

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A process for every core; benchmarks and single files run in this one."""
    from dmrlad_bench.envs.cores import available_cores

    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    alone = any(path.is_file() or path.is_relative_to(BENCHMARKS) for path in named)
    return 0 if alone else available_cores()


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
