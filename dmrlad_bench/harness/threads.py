"""How many threads a run takes, of torch and of the simulation, and that threads which wait do not spin."""

from __future__ import annotations

import os
from typing import NamedTuple

from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.cores import available_cores

MOST_THREADS = 1024
ONE_THREAD = ("smoke", "quick")  # budgets whose networks a second thread does not help: docs/performance.md


class Threads(NamedTuple):
    """Threads of a sitting. Torch's decide the last digits of a result; the simulation's decide nothing but time."""

    torch: int
    simulation: int


def threads_for(asked: int | None, simulation: int | None, budget: str, jobs: int = 1, recorded: Threads | None = None) -> Threads:
    """The threads of a run.

    Args:
        asked: for torch, and for the simulation where that is not asked for by itself; None = nothing was asked for.
        simulation: for the simulation; None = nothing was asked for.
        budget: decides torch's default.
        jobs: runs at a time, which share the cores allowed.
        recorded: those of the run folder that is continued, in place of defaults.

    Raises:
        CardError: a number below 1, or absurdly large.
    """
    for name, value in (("threads", asked), ("simulation_threads", simulation)):
        if value is not None and not 1 <= value <= MOST_THREADS:
            raise CardError(f"{name}: expected {'at least 1' if value < 1 else f'at most {MOST_THREADS}'}, got {value}")
    if recorded is None:
        share = max(1, available_cores() // jobs)
        recorded = Threads(1 if budget in ONE_THREAD else share, share)
    return Threads(asked or recorded.torch, simulation or asked or recorded.simulation)


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep while they wait for each other; counts in this process and its children until torch is imported.

    By default they spin, and where another program holds one of their cores, each small operation of torch then lasts as long as that
    program's turn. A policy that the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
