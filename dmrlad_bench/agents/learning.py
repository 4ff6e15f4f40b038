"""What every learner's iteration is made of: seeded generators, timed phases, and updates that are checked and averaged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dmrlad_bench.agents.interface import Diverged, Metrics, Phases
from dmrlad_bench.agents.turns import turn

CHECK_INTERVAL = 100


class Learner(Protocol):
    """Who counts its policy updates."""

    updates: int


def seeded_generator(seed: np.random.SeedSequence, device: torch.device) -> torch.Generator:
    """A torch generator on `device` that `seed` determines."""
    generator = torch.Generator(device=device)
    generator.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
    return generator


@contextmanager
def timed_phase(seconds: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Add the wall seconds of what runs inside, its work on the device included, to `seconds[name]`."""
    if isinstance(seconds, Phases) and seconds.told is not None:
        seconds.told(name)
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # not the device: other runs may share it
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


def averaged_updates(
    update: Callable[[], dict[str, Tensor]], updates: int, learner: Learner, phases: Phases | None = None, kind: str = "policy"
) -> Metrics:
    """Call `update` so many times, telling `phases` how far it is; returns the means of the scalar tensors that it gives.

    `kind` names the updates in messages.

    Raises:
        Diverged: one of them is not finite; looked at every `CHECK_INTERVAL` updates, for looking waits for the device.
    """
    names: list[str] = []
    total, done = torch.zeros(0), 0
    while done < updates:
        with turn():
            for _ in range(min(CHECK_INTERVAL, updates - done)):
                values = update()
                row = torch.stack(list(values.values()))
                names, total = (names, total + row) if names else (list(values), row)
                done += 1
        if phases is not None:
            phases.advance(done, updates)
        sums = dict(zip(names, total.tolist(), strict=True))
        broken = next((name for name, value in sums.items() if not math.isfinite(value)), None)
        if broken is not None:
            raise Diverged(f"the {broken} loss is {sums[broken]} at {kind} update {learner.updates}")
    return {name: value / updates for name, value in zip(names, total.tolist(), strict=True)}
