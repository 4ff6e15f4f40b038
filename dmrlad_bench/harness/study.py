"""An Optuna study in a folder: SQLite, one owner at a time, trials of a process that was killed taken up again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.writing import open_itself, refuse_link

STUDY_FILE = "study.db"
LOCK_FILE = "study.lock"
ASKING_FILE = "asking.lock"
TAKEN = "taken up"  # attribute of a trial that a killed process left
PATIENCE = 60.0  # seconds that a process waits for another's write
FINISHED = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
STATES = {told: TrialState[name] for name, told in FINISHED.items()}


class Study:
    """A study that maximises, with a TPE sampler and a median pruner.

    Trial n draws from a generator seeded with n, so a study that was stopped and continued tries what it would have tried.

    Args:
        folder: its own; made where there is none.
        name: of the study; the folder holds no other.
        facts: what makes two calls the same study.
        warm_up: steps of a trial before which it is not pruned.

    Raises:
        CardError: the folder or its database cannot be used, or they are another study's.
    """

    def __init__(self, folder: Path, name: str, facts: dict[str, Any], warm_up: int) -> None:
        self.folder = folder
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = folder / STUDY_FILE
        if "?" in str(folder):
            raise CardError(f"{folder}: the path of a study must hold no '?', which SQLite's addresses end at")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CardError(f"{folder}: cannot be used: {error.strerror}") from None
        refuse_link(path)
        with _database(path), self._asking():
            storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": PATIENCE}})
            others = [entry for entry in optuna.get_all_study_names(storage) if entry != name]
            if others:
                raise CardError(f"{folder}: holds the study {others[0]!r}, not {name!r}; choose another --out")
            pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warm_up)
            self.study = optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=pruner, load_if_exists=True)
            known = self.study.user_attrs
            for fact, value in facts.items():
                if fact in known and known[fact] != value:
                    raise CardError(f"{folder}: is a study of another {fact}: {known[fact]!r} there, now {value!r}; choose another --out")
                if fact not in known:
                    self.study.set_user_attr(fact, value)

    def trials(self) -> list[FrozenTrial]:
        """All trials, by number."""
        with _database(self.folder / STUDY_FILE):
            return self.study.get_trials(deepcopy=False)

    def release(self) -> None:
        """Mark the trials that a killed process left, so that `next_trial` takes them up; only for who holds the folder."""
        with _database(self.folder / STUDY_FILE):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self.study._storage.set_trial_user_attr(trial._trial_id, TAKEN, False)

    def next_trial(self, trials: int) -> Trial | None:
        """A trial that was left, or a new one while there are fewer than `trials`; None otherwise."""
        with _database(self.folder / STUDY_FILE), self._asking():
            known = self.study.get_trials(deepcopy=False)
            for trial in known:
                if trial.state == TrialState.RUNNING and trial.user_attrs.get(TAKEN) is False:
                    self.study._storage.set_trial_user_attr(trial._trial_id, TAKEN, True)
                    self.study.sampler = _sampler(trial.number)
                    return Trial(self.study, trial._trial_id)
            if len(known) >= trials:
                return None
            self.study.sampler = _sampler(len(known))
            return self.study.ask()

    def end(self, trial: Trial, state: str, value: float | None = None, note: str = "") -> None:
        """Record how a trial ended: `complete`, `pruned` or `failed`."""
        with _database(self.folder / STUDY_FILE):
            if note:
                trial.set_user_attr("note", note)
            self.study.tell(trial, value, STATES[state])

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """One process at a time."""
        with _locked(self.folder / ASKING_FILE, wait=True):
            yield


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold a study's folder against other processes; raises `CardError` where one holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CardError(f"{folder}: cannot be used: {error.strerror}") from None
    with _locked(folder / LOCK_FILE, wait=False):
        yield


@contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    try:
        file = os.fdopen(open_itself(path, os.O_RDWR | os.O_CREAT), "r+b")
    except OSError as error:
        raise CardError(f"{path.parent}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise CardError(f"{path.parent}: another process is tuning here; wait for it, or choose another --out") from None
        except OSError as error:
            raise CardError(f"{path.parent}: cannot be locked: {error.strerror}; choose another --out") from None
        yield


@contextmanager
def _database(path: Path) -> Iterator[None]:
    """What a database that is damaged, or none, raises becomes one line."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = error.__cause__ or error
        raise CardError(f"{path}: is no study's database, or cannot be written: {str(cause).splitlines()[0]}") from None


def _sampler(number: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=number)
