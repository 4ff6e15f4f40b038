"""Checkpoints: nested state as safetensors + JSON, written to a temporary name and renamed. Loading one runs no code."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from dmrlad_bench.cards import CardError

FORMAT_VERSION = 1
KEPT = 2
PARTIAL = ".partial"
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d{6,})\.json")


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never a part."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:  # a full disk: give back what the part took
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def checkpoint_iterations(folder: Path) -> list[int]:
    """Iterations that have a checkpoint in `folder`, newest first; whether they are whole is not looked at."""
    found = (CHECKPOINT_NAME.fullmatch(path.name) for path in folder.glob("checkpoint-*.json"))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save_checkpoint(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write `checkpoint-<iteration>.safetensors` and then its `.json`, which makes it count; keep the newest two."""
    arrays: dict[str, np.ndarray] = {}
    tree = _flatten(state, "", arrays)
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
    except (ValueError, KeyError, TypeError):
        raise CardError(f"{path}: corrupt checkpoint: not the JSON that was written") from None
    if version != FORMAT_VERSION:
        raise CardError(f"{path}: checkpoint of format version {version}; accepted: {FORMAT_VERSION}")
    if not whole:
        raise CardError(f"{path}: corrupt checkpoint: its content does not have the recorded SHA-256")
    return _restore(tree, read_tensors(path.with_suffix(".safetensors"), tensors_digest))


def save_shard(folder: Path, iteration: int, arrays: dict[str, np.ndarray]) -> str:
    """Write what one iteration added to the replay; returns its SHA-256."""
    (folder / "replay").mkdir(exist_ok=True)
    content = safetensors.numpy.save({name: np.asarray(array, order="C") for name, array in arrays.items()})
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
    for path in [*folder.glob(f"*{PARTIAL}"), *folder.glob(f"replay/*{PARTIAL}")]:
        path.unlink(missing_ok=True)
    for path in folder.glob("checkpoint-*.safetensors"):
        if not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)


def remove_replay(folder: Path) -> None:
    """Delete the replay's shards, which only continuing needs."""
    shutil.rmtree(folder / "replay", ignore_errors=True)


def _stem(iteration: int) -> str:
    return f"checkpoint-{iteration:06d}"


def _shard(folder: Path, iteration: int) -> Path:
    return folder / "replay" / f"{iteration:06d}.safetensors"


def _remove(folder: Path, iteration: int) -> None:
    for suffix in (".json", ".safetensors"):
        (folder / f"{_stem(iteration)}{suffix}").unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flatten(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for `value`; its arrays and tensors go to `arrays` and leave their name. Tagged dicts stand for what JSON lacks."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _flatten(entry, f"{path}/{key}", arrays) for key, entry in value.items()}
        return {"$items": [[key, _flatten(entry, f"{path}/{key}", arrays)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        entries = [_flatten(entry, f"{path}/{number}", arrays) for number, entry in enumerate(value)]
        return {"$tuple": entries} if isinstance(value, tuple) else entries
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            arrays[path] = np.asarray(value, order="C")
            return {"$array": path}
    elif hasattr(value, "detach"):
        arrays[path] = np.asarray(value.detach().cpu().numpy(), order="C")
        return {"$tensor": path}
    raise TypeError(
        f"state entry {path!r} is a {type(value).__name__}; a checkpoint holds dicts, lists, arrays, tensors, numbers and strings"
    )


def _restore(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return [_restore(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        return arrays[tree["$array"]]
    if "$tensor" in tree:
        import torch  # the checkpoint of an agent without tensors is read without it

        return torch.from_numpy(arrays[tree["$tensor"]].copy())
    if "$tuple" in tree:
        return tuple(_restore(entry, arrays) for entry in tree["$tuple"])
    if "$items" in tree:
        return {key: _restore(entry, arrays) for key, entry in tree["$items"]}
    return {key: _restore(entry, arrays) for key, entry in tree.items()}
