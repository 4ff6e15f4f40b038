"""The run folder: resolved configuration, seeds, device, the lock, and what may be resumed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from pydantic import Field

from dmrlad_bench.cards import AgentConfig, CardError, FamilyCard
from dmrlad_bench.cards.reading import CardModel, read_toml, validate
from dmrlad_bench.harness.checkpoint import PARTIAL, write_atomic
from dmrlad_bench.reports.results import RESULT_FILE, Result, read_result

CONFIG_FILE = "config.toml"
LOCK_FILE = "run.lock"
DEVICES = ("auto", "cpu", "cuda")
PARTS = ("environment", "agent", "evaluation", "tasks")


class RunConfig(CardModel):
    """Everything that decides a run's result: written to `config.toml`, compared on resume."""

    env: str
    budget: str
    seed: int = Field(ge=0)
    device: Literal["cpu", "cuda"]
    threads: int = Field(ge=1, description="threads of torch and of the simulation")
    agent: AgentConfig
    family: FamilyCard

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


@dataclass(frozen=True)
class Run:
    """A run folder: `runs/<family>/<agent>--<budget>--seed<N>/` unless another was asked for."""

    folder: Path

    @property
    def config(self) -> RunConfig:
        """The resolved configuration; raises `CardError` where the folder is none of a run."""
        return read_config(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return (self.folder / RESULT_FILE).exists()

    @property
    def result(self) -> Result:
        """The result; raises `CardError` where the run is unfinished or its file is not whole."""
        return read_result(self.folder)


def run_name(agent: str, budget: str, seed: int) -> str:
    """Name of a run's folder within its family's folder."""
    return f"{agent}--{budget}--seed{seed}"


def allowed_cores() -> int:
    """CPU cores this process may use: its affinity, and the control group's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no control group of version 2: the affinity is all there is to know
    return cores


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """`cpu` or `cuda`; `auto` takes a GPU where torch sees one. Raises `CardError` where the device is not there."""
    if device not in DEVICES:
        raise CardError(f"unknown device {device!r}; accepted: {', '.join(DEVICES)}")
    if device == "cpu":
        return "cpu"
    import torch  # seconds of import that the commands without training do not pay

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise CardError("device 'cuda': torch sees no CUDA device here; accepted here: auto, cpu")
    return "cpu"


def read_config(folder: Path) -> RunConfig:
    """Read `config.toml` of a run folder; raises `CardError`."""
    path = folder / CONFIG_FILE
    if not path.exists():
        raise CardError(f"{folder}: not a run folder: it has no {CONFIG_FILE}")
    return validate(RunConfig, read_toml(path), str(path))


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder that a new run would overwrite, or that cannot be written. Changes nothing.

    Raises:
        CardError: not writable, or not empty where `resume` is off, or not a run folder where it is on.
    """
    if folder.exists() and not folder.is_dir():
        raise CardError(f"{folder}: is a file; the run's folder is made there")
    ancestor = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK | os.X_OK):
        raise CardError(f"{folder}: cannot be written: {ancestor} is not a folder with write permission")
    content = [path.name for path in folder.iterdir()] if folder.exists() else []
    if not content:
        return
    if not resume:
        raise CardError(f"{folder}: exists and is not empty; pass --resume to continue it, or another --out")
    if CONFIG_FILE not in content and any(name != LOCK_FILE and not name.endswith(PARTIAL) for name in content):
        raise CardError(f"{folder}: cannot be resumed: it is not empty and has no {CONFIG_FILE}")


def settle(config: RunConfig, folder: Path) -> None:
    """Write `config.toml`, or compare with the one that is there.

    Raises:
        CardError: another configuration is recorded; the message names the first differing key.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        write_atomic(path, config.toml())
        return
    recorded, asked = (dict(_leaves(entry.model_dump(mode="json"))) for entry in (read_config(folder), config))
    for key in recorded | asked:
        there, here = recorded.get(key), asked.get(key)
        if there != here:
            raise CardError(f"{path}: cannot resume with another configuration: key {key!r} is {there!r} there, asked for {here!r}")


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
        file = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise CardError(f"{folder}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CardError(f"{folder}: another process is running here; wait for it, or choose another --out") from None
        yield
