"""Who runs a study's trials: this process, or several, each taking the next trial when it has ended one."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.errors import RunFailed
from dmrlad_bench.harness.matrix import KINDS, stop_with_parent
from dmrlad_bench.harness.signals import STOPPING, interrupt_on_signals
from dmrlad_bench.harness.study import owned
from dmrlad_bench.harness.tuning import TuningPlan, interrupted, open_study, records, say_on_stderr, tune_here
from dmrlad_bench.reports.tuning_tables import TrialRecord


def tune(plan: TuningPlan, trials: int, jobs: int = 1, quiet: bool = False) -> list[TrialRecord]:
    """Run a study until it has `trials` trials; what is there is kept, and a trial that was killed goes on from its checkpoint.

    Args:
        plan: of the study.
        trials: how many it is to have, those of earlier calls, pruned and failed ones counted.
        jobs: trials at a time; more than one, each in a process of its own.
        quiet: show no progress.

    Raises:
        CardError: the study's folder cannot be used.
        RunFailed: the disk is full, or a process was killed.
        Interrupted: Ctrl-C or a termination signal.
    """
    for name, count in (("trials", trials), ("jobs", jobs)):
        if count < 1:
            raise CardError(f"{name}: expected at least 1, got {count}")
    with owned(plan.folder):
        try:
            study = open_study(plan)
            study.release()
            done = sum(trial.state.is_finished() for trial in study.trials())
            if not quiet:
                say_on_stderr(f"study {plan.name}: {done} of {trials} trials done; in {plan.folder}")
            jobs = min(jobs, max(1, trials - done))
            if jobs > 1:
                _side_by_side(plan, trials, jobs, quiet)
            else:
                tune_here(plan, trials, _silent if quiet else say_on_stderr)
        except KeyboardInterrupt:
            raise interrupted(plan) from None
        return records(plan, study)


def _silent(line: str) -> None:
    del line


def _side_by_side(plan: TuningPlan, trials: int, jobs: int, quiet: bool) -> None:
    resource_tracker.ensure_running()  # or starting the first process would start it and unblock the signals
    context, workers = multiprocessing.get_context("spawn"), []
    failures: list[CardError | RunFailed] = []
    try:
        for _ in range(jobs):
            receiving, sending = context.Pipe(duplex=False)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                process = context.Process(target=_work, args=(plan, trials, quiet, sending))
                process.start()
                workers.append((process, receiving))
            finally:
                sending.close()
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for process, receiving in workers:
            process.join()
            try:
                kind, message = receiving.recv()
            except EOFError:
                kind, message = "failed", f"{plan.folder}: a process of the study ended with exit code {process.exitcode}; call again"
            if kind in KINDS:
                failures.append(KINDS[kind](message))
    finally:
        for process, _ in workers:
            if process.is_alive():
                process.terminate()
        for process, _ in workers:
            process.join()
    if failures:
        raise failures[0]


def _work(plan: TuningPlan, trials: int, quiet: bool, messages: Connection) -> None:
    """The life of a process that runs trials."""
    interrupt_on_signals(ignored=frozenset({signal.SIGINT}))  # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM
    threading.Thread(target=stop_with_parent, daemon=True).start()
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt), messages:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        try:
            tune_here(plan, trials, _silent if quiet else say_on_stderr)
        except CardError as error:
            messages.send(("bad input", str(error)))
        except RunFailed as error:
            messages.send(("failed", str(error)))
        else:
            messages.send(("done", ""))
