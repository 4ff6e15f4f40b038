"""A run from where its folder is to its result, and how one that ends early becomes one line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmrlad_bench.agents.external import AgentFault
from dmrlad_bench.agents.interface import Diverged
from dmrlad_bench.cards import CardError
from dmrlad_bench.envs.metaworld_workers import SimulatorEnded
from dmrlad_bench.harness.agent import print_notice
from dmrlad_bench.harness.checkpoint import checkpoint_iterations, remove_leftovers, remove_replay
from dmrlad_bench.harness.errors import Interrupted, RunFailed
from dmrlad_bench.harness.expected import SCORED_ONLY
from dmrlad_bench.harness.failures import ERROR_FILE, unexpected, written_traceback
from dmrlad_bench.harness.machine import torch_settings
from dmrlad_bench.harness.run import Run, RunConfig, check_folder, locked, settle
from dmrlad_bench.harness.session import Session, Watch
from dmrlad_bench.harness.threads import Threads
from dmrlad_bench.reports.results import RESULT_FILE


def train_run(
    config: RunConfig, folder: Path, *, resume: bool, command: list[str], quiet: bool = False, bar: bool = True, watch: Watch | None = None
) -> Run:
    """Train and score one agent on one family with one seed; a finished run is returned as it is.

    Args:
        config: everything that decides the result. Its threads are this sitting's; `config.toml` keeps those of the first.
        folder: the run folder.
        resume: continue what is there.
        command: recorded in the result, and shown as the way to continue.
        quiet: show no progress.
        bar: show progress as a bar where standard error is a terminal; else as lines that begin with the run's title.
        watch: is shown the curve so far after every iteration that is saved; may raise `Stopped`, which ends this sitting.

    Raises:
        CardError: the folder cannot be used, holds another configuration, or its checkpoints are corrupt.
        RunFailed: a loss became NaN, the disk is full, an agent of anyone's raised, or anything else did that nobody expected.
        Interrupted: Ctrl-C or a termination signal.
    """
    check_folder(config, folder, resume)
    with _interrupts(folder, command), locked(folder), _disk_failures(folder), _faults(folder):
        check_folder(config, folder, resume)  # again: another process may have used the folder before it was locked
        threads = Threads(config.threads, config.simulation_threads)
        config = settle(config, folder)
        run = Run(folder)
        if run.finished and not _to_be_remade(config, run):
            _ = run.result  # a file that holds something else than a result is refused here
            remove_replay(folder)
            return run
        remove_leftovers(folder)
        (folder / ERROR_FILE).unlink(missing_ok=True)
        with torch_settings(threads.torch, config.device):
            _sit(Session(config, folder, command, threads, watch), command, quiet, bar)
        return run


def _sit(session: Session, command: list[str], quiet: bool, bar: bool) -> None:
    """One sitting, from wherever the folder is to the result; how it ends early becomes one line."""
    folder = session.folder
    try:
        session.start()
        session.go(quiet, bar)
    except KeyboardInterrupt:
        raise interrupted(folder, command, session.saves) from None
    except Diverged as error:
        last = "none" if session.saved is None else folder / f"checkpoint-{session.saved:06d}.json"
        raise RunFailed(f"stopped at environment step {session.environment_steps}: {error}; last checkpoint: {last}") from None
    finally:
        session.environments.close()


def interrupted(folder: Path, command: list[str], saves: bool = True) -> Interrupted:
    """What an interrupted run ends with: what is saved, read off the folder, and how to continue; an agent may be one that is not saved."""
    found = checkpoint_iterations(folder) if saves else []
    saved = f"iteration {found[0]} is saved in {folder}" if found else f"nothing is saved yet in {folder}"
    again = command if "--resume" in command else [*command, "--resume"]
    return Interrupted(f"interrupted: {saved}; continue with: {shlex.join(again)}")


def _to_be_remade(config: RunConfig, run: Run) -> bool:
    """Whether the result was cut, as by a full disk, and the last checkpoint is there to make it again from."""
    try:
        json.loads((run.folder / RESULT_FILE).read_bytes())
        return False
    except OSError:
        return False
    except ValueError:
        found = checkpoint_iterations(run.folder)
    iterations = 0 if config.agent.algorithm in SCORED_ONLY else config.agent.schedule.iterations
    if not found or found[0] < iterations:
        return False
    print_notice(f"{run.folder / RESULT_FILE}: truncated or not JSON; it is made again from checkpoint {found[0]}")
    return True


@contextmanager
def _interrupts(folder: Path, command: list[str]) -> Iterator[None]:
    """An interrupt before or behind the sitting says what is saved, too."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise interrupted(folder, command) from None


@contextmanager
def _disk_failures(folder: Path) -> Iterator[None]:
    """A full disk, or a file that cannot be read or written, fails the run in one line."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"stopped: {error.filename or folder}: {error.strerror or error}; continue with --resume") from error


@contextmanager
def _faults(folder: Path) -> Iterator[None]:
    """What anything does wrong fails the run in one line; the whole traceback goes to a file of the run folder."""
    try:
        yield
    except (CardError, RunFailed, OSError):
        raise
    except AgentFault as error:
        raise RunFailed(f"{folder}: stopped: {error}; {written_traceback(folder, error.__cause__ or error)}") from error
    except SimulatorEnded as error:
        raise RunFailed(f"{folder}: stopped: {error}; continue with --resume") from error
    except (Exception, SystemExit, GeneratorExit) as error:  # a fault of ours, of a library's or of a body of anyone's; MemoryError is one
        raise unexpected(folder, error) from error
