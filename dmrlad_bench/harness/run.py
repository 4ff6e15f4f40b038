"""The run folder: resolved configuration, seeds, device, the lock, and what may be resumed."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tomli_w
from pydantic import Field

from dmrlad_bench.cards import AgentConfig, CardError, FamilyCard
from dmrlad_bench.cards.family import UNHASHED
from dmrlad_bench.cards.html import html_table
from dmrlad_bench.cards.reading import CardModel, read_toml, validate
from dmrlad_bench.cards.writing import PARTIAL, open_itself, refuse_link, write_atomic
from dmrlad_bench.harness.checkpoint import REPLAY
from dmrlad_bench.harness.threads import MOST_THREADS
from dmrlad_bench.reports.results import RESULT_FILE, Result, read_result

if TYPE_CHECKING:
    from pandas import DataFrame

CONFIG_FILE = "config.toml"
LOCK_FILE = "run.lock"
MADE_BEFORE_CONFIG = {LOCK_FILE, CONFIG_FILE + PARTIAL}  # what a run killed at its very start leaves
# what a run reads and writes at the top of its folder
OWN_FILES = re.compile(
    r"config\.toml|run\.lock|progress\.csv.*|result\.json|error\.log|checkpoint-.*|events\.out\.tfevents\..*|.*\.partial"
)
DEVICES = ("auto", "cpu", "cuda")
PARTS = ("environment", "agent", "evaluation", "tasks")


class RunConfig(CardModel):
    """Everything that decides a run's result: written to `config.toml`, compared on resume."""

    env: str
    budget: Literal["smoke", "quick", "standard", "full"]
    seed: int = Field(ge=0)
    device: Literal["cpu", "cuda"]
    threads: int = Field(ge=1, le=MOST_THREADS, description="threads of torch")
    simulation_threads: int = Field(ge=1, le=MOST_THREADS, description="threads of the simulation")
    agent: AgentConfig
    family: FamilyCard
    tuning: Literal[True] | None = Field(
        default=None, description="a tuning run: validation tasks are all that is ever scored, so it cannot be published"
    )

    def seeds(self) -> dict[str, np.random.SeedSequence]:
        """An independent seed for each part of the run."""
        return dict(zip(PARTS, np.random.SeedSequence(self.seed).spawn(len(PARTS)), strict=True))

    def evaluation_seed(self, iteration: int, split: str, deterministic: bool) -> np.random.SeedSequence:
        """The seed of one evaluation: it depends on nothing that happened before."""
        part = np.random.SeedSequence(self.seed).spawn(len(PARTS))[PARTS.index("evaluation")]
        key = (*part.spawn_key, iteration, *split.encode(), int(deterministic))
        return np.random.SeedSequence(part.entropy, spawn_key=key)

    def toml(self) -> bytes:
        """The content of `config.toml`; keys without a value are left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True)).encode()


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder: `runs/<family>/<agent>--<budget>--seed<N>/` unless another was asked for."""

    folder: Path

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {'finished' if self.finished else 'unfinished'})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the final scores, else what the run is; a folder that cannot be read says so."""
        try:
            if self.finished:
                return self.result.html(f"{self!r}: {self.result.summary}")
            config = self.config
            rows = [("agent", config.agent.name), ("env", config.env), ("budget", config.budget), ("seed", config.seed)]
            return html_table(repr(self), (), [*rows, ("device", config.device), ("threads", config.threads)])
        except CardError as error:
            return html_table(repr(self), (), [], [str(error)])

    def to_pandas(self) -> DataFrame:
        """The learning curve, one row for each evaluation, split and episode; raises `CardError` as `result` does."""
        return self.result.to_pandas()

    @property
    def config(self) -> RunConfig:
        """The resolved configuration; raises `CardError` where the folder is none of a run."""
        return read_config(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return os.path.exists(self.folder / RESULT_FILE)

    @property
    def result(self) -> Result:
        """The result; raises `CardError` where the run is unfinished or its file is not whole."""
        return read_result(self.folder)


def run_name(agent: str, budget: str, seed: int) -> str:
    """Name of a run's folder within its family's folder."""
    return f"{agent}--{budget}--seed{seed}"


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`; `auto` takes a GPU where torch sees one. Raises `CardError` where the device is not there."""
    if device not in DEVICES:
        raise CardError(f"unknown device {device!r}; accepted: {', '.join(DEVICES)}")
    if device == "cpu":
        return "cpu"
    if has_cuda():
        return "cuda"
    if device == "cuda":
        raise CardError("device 'cuda': torch sees no CUDA device here; accepted here: auto, cpu")
    return "cpu"


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch  # seconds of import that the commands without training do not pay

    return torch.cuda.is_available()


def read_config(folder: Path) -> RunConfig:
    """Read `config.toml` of a run folder; raises `CardError`."""
    path = folder / CONFIG_FILE
    if not os.path.exists(path):
        raise CardError(f"{folder}: not a run folder: it has no {CONFIG_FILE}")
    content = read_toml(path)
    if "threads" in content:
        content.setdefault("simulation_threads", content["threads"])  # of a folder of before they were counted apart
    return validate(RunConfig, content, str(path))


def check_folder(config: RunConfig, folder: Path, resume: bool) -> None:
    """Refuse a folder that a run with this configuration cannot use. Changes nothing.

    Raises:
        CardError: not writable; not empty where `resume` is off; where it is on, not a run folder or one of another configuration.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise CardError(f"{folder}: is a file; the run's folder is made there")
        ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
            raise CardError(f"{folder}: cannot be written: {ancestor} is not a folder with write permission")
        content = {path.name for path in folder.iterdir()} if folder.exists() else set()
    except OSError as error:
        raise CardError(f"{folder}: cannot be used: {error.strerror}") from None
    _refuse_what_is_no_file(folder, content)
    if not content - MADE_BEFORE_CONFIG:
        return
    if not resume:
        raise CardError(f"{folder}: exists and is not empty; pass --resume to continue it, or another --out")
    if CONFIG_FILE not in content:
        raise CardError(f"{folder}: cannot be resumed: it is not empty and has no {CONFIG_FILE}")
    _check_same(config, read_config(folder), folder / CONFIG_FILE)


def _refuse_what_is_no_file(folder: Path, content: set[str]) -> None:
    """Raises `CardError` where something that a run reads or writes in its folder is a link, or no regular file."""
    own = [folder / name for name in sorted(content) if OWN_FILES.fullmatch(name)]
    replay = folder / REPLAY
    refuse_link(replay)
    own += sorted(replay.iterdir()) if replay.is_dir() else [replay] if REPLAY in content else []
    for path in own:
        refuse_link(path)
        if not path.is_file() and os.path.lexists(path):  # another process may have taken it away meanwhile
            raise CardError(f"{path}: is no regular file; move it away")


def settle(config: RunConfig, folder: Path) -> RunConfig:
    """Write `config.toml` where there is none yet; returns what it holds."""
    path = folder / CONFIG_FILE
    if path.exists():
        return read_config(folder)
    write_atomic(path, config.toml())
    return config


def _check_same(config: RunConfig, recorded: RunConfig, path: Path) -> None:
    """Raises `CardError` with the first key that differs; prose and reference scores, which change no run, and threads may."""
    free: Any = {"agent": {"description"}, "family": UNHASHED, "threads": True, "simulation_threads": True}
    there, here = (dict(_leaves(entry.model_dump(mode="json", exclude=free))) for entry in (recorded, config))
    for key in there | here:
        if there.get(key) != here.get(key):
            raise CardError(
                f"{path}: cannot resume with another configuration: key {key!r} is {there.get(key)!r} there, asked for {here.get(key)!r}"
            )


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder against other processes; the lock goes with the process that holds it.

    Raises:
        CardError: another process runs here.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_itself(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT), "r+b")  # whose content is nobody's: nothing is cut
    except OSError as error:
        raise CardError(f"{folder}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CardError(f"{folder}: another process is running here; wait for it, or choose another --out") from None
        except OSError as error:
            raise CardError(f"{folder}: cannot be locked: {error.strerror}; choose another --out") from None
        yield
