"""Fixtures that several files of tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from counting_agent import CountingAgent

from dmrlad_bench.agents.interface import Problem


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
