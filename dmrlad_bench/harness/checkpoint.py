"""Checkpoints: nested state as safetensors + JSON, written to a temporary name and renamed. Loading one runs no code."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from dmrlad_bench.cards import CardError
from dmrlad_bench.cards.foreign import message_of
from dmrlad_bench.cards.writing import PARTIAL, refuse_link, write_atomic
from dmrlad_bench.harness.states import flatten, restore, shard_arrays

FORMAT_VERSION = 1
KEPT = 2
REPLAY = "replay"  # folder of the shards
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d{6,})\.json")


def checkpoint_iterations(folder: Path) -> list[int]:
    """Iterations that have a checkpoint in `folder`, newest first; whether they are whole is not looked at."""
    found = (CHECKPOINT_NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*.json"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write `checkpoint-<iteration>.safetensors` and then its `.json`, which makes it count; keep the newest two."""
    tree, arrays = flatten(state)
    tensors = safetensors.numpy.save(arrays)
    content = json.dumps(tree)
    head = {"format_version": FORMAT_VERSION, "iteration": iteration}
    head |= {"tensors_sha256": _sha256(tensors), "state_sha256": _sha256(content.encode())}
    stem = _stem(iteration)
    write_atomic(folder / f"{stem}.safetensors", tensors)
    write_atomic(folder / f"{stem}.json", json.dumps(head | {"state": tree}).encode())
    for old in checkpoint_iterations(folder):
        if old > iteration:
            _remove(folder, old)
    for old in checkpoint_iterations(folder)[KEPT:]:
        _remove(folder, old)


def load_checkpoint(folder: Path, iteration: int) -> dict[str, Any]:
    """Read one checkpoint; tensors come back on the CPU.

    Raises:
        CardError: a file is missing, truncated, changed, or of another format version; the message names it.
    """
    path = folder / f"{_stem(iteration)}.json"
    try:
        content = json.loads(path.read_bytes())
        version, tree = content["format_version"], content["state"]
        whole = content["state_sha256"] == _sha256(json.dumps(tree).encode())
        tensors_digest = content["tensors_sha256"]
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CardError(f"{path}: corrupt checkpoint: not the JSON that was written") from None
    if version != FORMAT_VERSION:
        raise CardError(f"{path}: checkpoint of format version {version}; accepted: {FORMAT_VERSION}")
    if not whole:
        raise CardError(f"{path}: corrupt checkpoint: its content does not have the recorded SHA-256")
    arrays = read_tensors(path.with_suffix(".safetensors"), tensors_digest)
    try:
        return restore(tree, arrays)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {message_of(error)}"
        raise CardError(f"{path}: corrupt checkpoint: its content refers to what is not there: {fault}") from None


def save_shard(folder: Path, iteration: int, arrays: dict[str, np.ndarray]) -> str:
    """Write what one iteration added to the replay; returns its SHA-256.

    Raises:
        TypeError: something else than a dict of arrays; one line that names the key.
    """
    content = safetensors.numpy.save(shard_arrays(arrays))
    refuse_link(folder / REPLAY)
    (folder / REPLAY).mkdir(exist_ok=True)
    write_atomic(_shard(folder, iteration), content)
    return _sha256(content)


def has_shards(folder: Path, digests: dict[str, str]) -> bool:
    """Whether every shard of the replay is there, whole or not; a finished run has deleted them."""
    return all(_shard(folder, int(iteration)).exists() for iteration in digests)


def load_shards(folder: Path, digests: dict[str, str]) -> Iterator[dict[str, np.ndarray]]:
    """The replay's shards in the order in which they were written; `digests` maps iterations to SHA-256."""
    for iteration in sorted(digests, key=int):
        yield read_tensors(_shard(folder, int(iteration)), digests[iteration])


def read_tensors(path: Path, expected: str) -> dict[str, np.ndarray]:
    """Read a safetensors file whose SHA-256 is known; raises `CardError` where it is missing or differs."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from None
    if _sha256(content) != expected:
        raise CardError(f"{path}: corrupt or truncated: {len(content)} bytes that do not have the recorded SHA-256")
    try:
        return safetensors.numpy.load(content)
    except SafetensorError as error:
        raise CardError(f"{path}: not a safetensors file: {error}") from None


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted write left behind: parts, and tensors whose checkpoint was never or is no longer there."""
    refuse_link(folder / REPLAY)
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob(f"{REPLAY}/*{PARTIAL}")]:
        path.unlink(missing_ok=True)
    for path in folder.glob("checkpoint-*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def remove_replay(folder: Path) -> None:
    """Delete the replay's shards, which only continuing needs."""
    refuse_link(folder / REPLAY)
    shutil.rmtree(folder / REPLAY, ignore_errors=True)


def _stem(iteration: int) -> str:
    return f"checkpoint-{iteration:06d}"


def _shard(folder: Path, iteration: int) -> Path:
    return folder / REPLAY / f"{iteration:06d}.safetensors"


def _remove(folder: Path, iteration: int) -> None:
    for suffix in (".json", ".safetensors"):
        (folder / f"{_stem(iteration)}{suffix}").unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
