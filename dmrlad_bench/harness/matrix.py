"""Many runs: one after another in this process, several at a time, each in a process of its own, or all at once in this process."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness import train
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.failures import unexpected
from dmrlad_bench.harness.pack import packed
from dmrlad_bench.harness.run import Run, RunConfig
from dmrlad_bench.harness.signals import STOPPING, interrupt_on_signals
from dmrlad_bench.reports.results import Result

KINDS: dict[str, type[CardError] | type[RunFailed]] = {"bad input": CardError, "failed": RunFailed}
Outcome = Result | CardError | RunFailed


@dataclass(frozen=True)
class Options:
    """What all runs of a matrix share; as for `train_run`."""

    resume: bool
    command: list[str]
    quiet: bool
    pack: bool = False


def train_all(plans: Mapping[Path, RunConfig], jobs: int, options: Options) -> Iterator[tuple[Path, Outcome]]:
    """Train and score every run; yields each folder with its result, or with why there is none, as it ends.

    Args:
        plans: configurations by run folder. Finished runs are taken as they are.
        jobs: runs at a time; 1 = one after another in this process, or all at once in it where the options say `pack`.
        options: what they share.

    Raises:
        Interrupted: Ctrl-C or a termination signal; every run has stopped, and the message has a line for each.
    """
    if jobs > 1:
        yield from _side_by_side(plans, jobs, options)
        return
    if options.pack:
        yield from packed(plans, lambda config, folder: _outcome(config, folder, options, bar=False))
        return
    for folder, config in plans.items():
        yield folder, _outcome(config, folder, options)


def _outcome(config: RunConfig, folder: Path, options: Options, bar: bool = True) -> Outcome:
    """Run here; what a run may end in is an outcome, and an interrupt is raised."""
    resume = options.resume or Run(folder).finished
    try:
        return train.train_run(config, folder, resume=resume, command=options.command, quiet=options.quiet, bar=bar).result
    except (CardError, RunFailed) as error:
        error.__cause__ = error.__context__ = None  # an error that is kept would keep the run that it came from
        return error.with_traceback(None)
    except Exception as error:  # from outside of what `train_run` watches over: one run's fault must not stop the others
        return unexpected(folder, error)
    finally:
        gc.collect()  # a recorded update refers to itself: what is left of this run would lie beside the next one's replay


@dataclass(frozen=True)
class _Worker:
    folder: Path
    process: SpawnProcess
    messages: Connection

    def outcome(self) -> Outcome | Interrupted:
        """How a process that has ended ended."""
        self.process.join()
        try:
            kind, message = self.messages.recv()
        except EOFError:
            return self._died()
        if kind == "interrupted":
            return Interrupted(message)
        if kind == "done":
            try:
                return Run(self.folder).result
            except CardError as error:
                return error
        return KINDS[kind](message)

    def _died(self) -> RunFailed:
        code = self.process.exitcode or 0
        if code < 0:
            why = f"was killed by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")
        else:
            why = f"ended with exit code {code}; its traceback is above"
        return RunFailed(f"{self.folder}: the run's process {why}; continue with --resume")


def _side_by_side(plans: Mapping[Path, RunConfig], jobs: int, options: Options) -> Iterator[tuple[Path, Outcome]]:
    waiting: list[tuple[Path, RunConfig]] = []
    for folder, config in plans.items():
        if Run(folder).finished:
            yield folder, _outcome(config, folder, options)
        else:
            waiting.append((folder, config))
    workers: list[_Worker] = []
    resource_tracker.ensure_running()  # or starting the first process would start it and unblock the signals
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                folder, config = waiting.pop(0)
                _start(folder, config, options, workers)
            connection.wait([worker.process.sentinel for worker in workers])
            for worker in [worker for worker in workers if not worker.process.is_alive()]:
                outcome = worker.outcome()
                workers.remove(worker)
                if isinstance(outcome, Interrupted):  # someone stopped this one process
                    outcome = RunFailed(str(outcome))
                yield worker.folder, outcome
    except KeyboardInterrupt:
        raise Interrupted("\n".join(_stop(workers)) or "interrupted") from None
    finally:
        for worker in workers:  # only where the caller has had enough, or a second interrupt came
            worker.process.kill()


def _start(folder: Path, config: RunConfig, options: Options, workers: list[_Worker]) -> None:
    """Start a process. It inherits blocked signals, so that one that comes while it starts waits until it is ready."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        process = context.Process(target=_work, args=(config, folder, options, sending), name=str(folder))
        process.start()
        workers.append(_Worker(folder, process, receiving))
    finally:
        sending.close()  # the process has its own end; when it dies, ours reads as ended
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(workers: list[_Worker]) -> Iterator[str]:
    """End all processes; a line for each."""
    for worker in workers:
        if worker.process.is_alive():
            worker.process.terminate()
    while workers:
        worker = workers[0]
        outcome = worker.outcome()
        workers.pop(0)
        yield f"{worker.folder}: finished" if isinstance(outcome, Result) else str(outcome)


def _work(config: RunConfig, folder: Path, options: Options, messages: Connection) -> None:
    """The life of a worker process."""
    interrupt_on_signals(ignored=frozenset({signal.SIGINT}))  # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM
    threading.Thread(target=stop_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError), messages:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
            outcome = _outcome(config, folder, options, bar=False)
        except KeyboardInterrupt as error:
            done = Run(folder).finished  # an interrupt between the result and here
            messages.send(("done", "") if done else ("interrupted", str(error) or str(train.interrupted(folder, options.command))))
            return
        if isinstance(outcome, CardError):
            messages.send(("bad input", str(outcome)))
        elif isinstance(outcome, RunFailed):
            messages.send(("failed", str(outcome)))
        else:
            messages.send(("done", ""))


def stop_with_parent() -> None:
    """Where the parent is killed, its workers stop as by a termination signal."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
