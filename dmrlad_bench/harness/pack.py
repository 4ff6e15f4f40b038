"""Many runs in this process, side by side, each in a thread of its own; on a GPU, which they share, each in a CUDA stream of its own.

A run gives what it gives alone: it has its own generators, environments and parameters, and runs in as many threads of torch.
On a CPU, where Python's threads wait for each other, processes (`--jobs`) are the faster way.
"""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from dmrlad_bench.agents.turns import taking_turns
from dmrlad_bench.harness.errors import Interrupted
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.run import RunConfig

Ending = TypeVar("Ending")
POLL = 0.2  # seconds after which a signal is noticed at the latest


class _Worker(threading.Thread):
    """A run in a thread; puts itself into the queue when it is over."""

    def __init__(self, config: RunConfig, folder: Path, run: Callable[[RunConfig, Path], Any], over: queue.Queue[_Worker]) -> None:
        super().__init__(name=str(folder), daemon=True)
        self.config, self.folder, self._run, self._over = config, folder, run, over
        self.outcome: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with _own_stream(self.config.device):
                self.outcome = self._run(self.config, self.folder)
        except BaseException as error:
            self.error = error
        finally:
            self._over.put(self)

    def interrupt(self) -> None:
        """Raise a `KeyboardInterrupt` in the thread, as Ctrl-C does in a program's first thread."""
        assert self.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt))


def packed(plans: Mapping[Path, RunConfig], run: Callable[[RunConfig, Path], Ending]) -> Iterator[tuple[Path, Ending]]:
    """Run all of `plans` at once; yields each folder with what `run` gave, as it ends.

    Raises:
        Interrupted: Ctrl-C or a termination signal; every run has stopped, and the message has a line for each.
    """
    over: queue.Queue[_Worker] = queue.Queue()
    workers = [_Worker(config, folder, run, over) for folder, config in plans.items()]
    threads, device = next(iter((config.threads, config.device) for config in plans.values()))
    left = set(workers)
    turns = taking_turns() if device == "cuda" else nullcontext()
    with turns, torch_settings(threads, device):  # each run's own settings are these: what the first to end puts back changes nothing
        try:
            for worker in workers:
                worker.start()
            while left:
                worker = _ended(left, over)
                if worker.error is not None:
                    raise worker.error
                yield worker.folder, worker.outcome
        except KeyboardInterrupt:
            raise Interrupted("\n".join(_stopped(left, over)) or "interrupted") from None
        except BaseException:
            for _ in _stopped(left, over):
                pass
            raise


def _ended(left: set[_Worker], over: queue.Queue[_Worker]) -> _Worker:
    """Wait for the next of `left` to end, and take it out."""
    while True:
        try:
            worker = over.get(timeout=POLL)
        except queue.Empty:  # an interrupt may have kept a thread from saying that it is over
            worker = next((worker for worker in left if not worker.is_alive()), None)
        if worker in left:
            left.discard(worker)
            return worker


def _stopped(left: set[_Worker], over: queue.Queue[_Worker]) -> Iterator[str]:
    """Stop what still runs; a line for each."""
    left -= {worker for worker in left if worker.ident is None}  # an interrupt came before they were started
    for worker in left:
        if worker.is_alive():
            worker.interrupt()
    while left:
        worker = _ended(left, over)
        yield f"{worker.folder}: finished" if worker.error is None else str(worker.error) or f"{worker.folder}: interrupted"


@contextmanager
def _own_stream(device: str) -> Iterator[None]:
    """On a GPU: a stream of its own, and gradients computed by this thread, not by the one that autograd keeps for the whole device."""
    if device != "cuda":
        yield
        return
    import torch

    with torch.cuda.stream(torch.cuda.Stream()), torch.autograd.set_multithreading_enabled(False):
        yield
