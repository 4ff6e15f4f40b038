"""A run from where its folder is to its result, and how one that ends early becomes one line."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmrlad_bench.agents.external import AgentFault
from dmrlad_bench.agents.interface import Diverged
from dmrlad_bench.harness.checkpoint import remove_leftovers, remove_replay, write_atomic
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.run import Run, RunConfig, check_folder, locked, settle
from dmrlad_bench.harness.session import Session
from dmrlad_bench.harness.threads import Threads

ERROR_FILE = "error.log"  # the traceback of an agent of anyone's that raised


def train_run(config: RunConfig, folder: Path, *, resume: bool, command: list[str], quiet: bool = False, bar: bool = True) -> Run:
    """Train and score one agent on one family with one seed; a finished run is returned as it is.

    Args:
        config: everything that decides the result. Its threads are this sitting's; `config.toml` keeps those of the first.
        folder: the run folder.
        resume: continue what is there.
        command: recorded in the result, and shown as the way to continue.
        quiet: show no progress.
        bar: show progress as a bar where standard error is a terminal; else as lines that begin with the run's title.

    Raises:
        CardError: the folder cannot be used, holds another configuration, or its checkpoints are corrupt.
        RunFailed: a loss became NaN, the disk is full, or an agent of anyone's raised.
        Interrupted: Ctrl-C or a termination signal.
    """
    check_folder(config, folder, resume)
    with locked(folder), _disk_failures(folder), _agent_faults(folder):
        check_folder(config, folder, resume)  # again: another process may have used the folder before it was locked
        threads = Threads(config.threads, config.simulation_threads)
        config = settle(config, folder)
        run = Run(folder)
        if run.finished:
            _ = run.result  # a file that is not whole is refused here
            remove_replay(folder)
            return run
        remove_leftovers(folder)
        (folder / ERROR_FILE).unlink(missing_ok=True)
        with torch_settings(threads.torch, config.device):
            _sit(Session(config, folder, command, threads), command, quiet, bar)
        return run


def _sit(session: Session, command: list[str], quiet: bool, bar: bool) -> None:
    """One sitting, from wherever the folder is to the result; how it ends early becomes one line."""
    folder = session.folder
    try:
        session.start()
        session.go(quiet, bar)
    except KeyboardInterrupt:
        saved = f"nothing is saved yet in {folder}" if session.saved is None else f"iteration {session.saved} is saved in {folder}"
        again = command if "--resume" in command else [*command, "--resume"]
        raise Interrupted(f"interrupted: {saved}; continue with: {shlex.join(again)}") from None
    except Diverged as error:
        last = "none" if session.saved is None else folder / f"checkpoint-{session.saved:06d}.json"
        raise RunFailed(f"stopped at environment step {session.environment_steps}: {error}; last checkpoint: {last}") from None
    finally:
        session.environments.close()


@contextmanager
def _disk_failures(folder: Path) -> Iterator[None]:
    """A full disk, or a file that cannot be read or written, fails the run in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"stopped: {error.filename or folder}: {error.strerror or error}; continue with --resume") from error


@contextmanager
def _agent_faults(folder: Path) -> Iterator[None]:
    """What an agent of anyone's does wrong fails the run in one line; the whole traceback goes to a file of the run folder."""
    try:
        yield
    except AgentFault as error:
        path = folder / ERROR_FILE
        write_atomic(path, "".join(traceback.format_exception(error.__cause__ or error)).encode())
        raise RunFailed(f"{folder}: stopped: {error}; traceback: {path}") from error
