"""Checkpoints: everything comes back, nothing half-written is read, faults name the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.checkpoint import (
    checkpoint_iterations,
    load_checkpoint,
    load_shards,
    remove_leftovers,
    save_checkpoint,
    save_shard,
    write_atomic,
)


def assert_same(first: object, second: object) -> None:
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert isinstance(second, dict)
        assert list(first) == list(second)
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert isinstance(second, list | tuple)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, torch.Tensor):
        assert isinstance(second, torch.Tensor)
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    elif isinstance(first, np.ndarray):
        assert isinstance(second, np.ndarray)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    else:
        assert first == second


def test_everything_an_agent_may_hold_comes_back(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.ones(3)).sum().backward()
    optimiser.step()
    generator = np.random.default_rng(5)
    generator.normal()
    state = {
        "network": dict(network.state_dict()),
        "optimiser": optimiser.state_dict(),
        "generator": generator.bit_generator.state,
        "torch_generator": torch.Generator().manual_seed(3).get_state(),
        "arrays": [np.arange(6.0).reshape(2, 3).T, np.array(True), np.zeros((0, 4), dtype=np.int64)],
        "scalar_tensor": torch.tensor(2.5, dtype=torch.float64),
        "plain": {"none": None, "flag": True, "text": "é", "number": 0.1, "big": 2**200, "infinite": float("inf")},
        "pair": (1, "two"),
        "$odd": {3: "three"},
    }
    save_checkpoint(tmp_path, 7, state)
    loaded = load_checkpoint(tmp_path, 7)
    assert_same(loaded, state)
    optimiser.load_state_dict(loaded["optimiser"])


def test_what_a_checkpoint_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'/agent/function' is a function"):
        save_checkpoint(tmp_path, 1, {"agent": {"function": lambda: None}})
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for iteration in (0, 1, 2, 3):
        save_checkpoint(tmp_path, iteration, {"iteration": iteration, "array": np.ones(iteration)})
    assert checkpoint_iterations(tmp_path) == [3, 2]
    assert len(list(tmp_path.iterdir())) == 4
    save_checkpoint(tmp_path, 2, {"iteration": 2})  # resumed from 1: what was newer is of another history
    assert checkpoint_iterations(tmp_path) == [2]


def test_other_names_are_no_checkpoints_and_tensors_alone_are_deleted(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {"array": np.ones(3)})
    for name in ("checkpoint-000003 (copy).json", "checkpoint-best.json"):
        (tmp_path / name).touch()
    (tmp_path / "checkpoint-000004.safetensors").touch()  # a kill before its JSON was written
    assert checkpoint_iterations(tmp_path) == [3]
    remove_leftovers(tmp_path)
    assert not (tmp_path / "checkpoint-000004.safetensors").exists()
    assert list(load_checkpoint(tmp_path, 3)) == ["array"]


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
@pytest.mark.parametrize("damage", ["truncate", "change", "empty", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    save_checkpoint(tmp_path, 3, {"array": np.arange(100.0), "number": 123456})
    path = tmp_path / f"checkpoint-000003{suffix}"
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[:-20])
    elif damage == "change":
        path.write_bytes(content.replace(b"123456", b"123457") if suffix == ".json" else content[:-1] + b"\x01")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CardError, match=path.name) as caught:
        load_checkpoint(tmp_path, 3)
    assert "\n" not in str(caught.value)


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {})
    path = tmp_path / "checkpoint-000003.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    with pytest.raises(CardError, match="format version 99; accepted: 1"):
        load_checkpoint(tmp_path, 3)


def test_shards_come_back_in_order_and_are_checked(tmp_path: Path) -> None:
    digests = {str(number): save_shard(tmp_path, number, {"value": np.full(2, number)}) for number in (1, 2, 10)}
    assert [int(shard["value"][0]) for shard in load_shards(tmp_path, digests)] == [1, 2, 10]
    (tmp_path / "replay" / "000002.safetensors").write_bytes(b"half")
    with pytest.raises(CardError, match=r"000002\.safetensors: corrupt or truncated"):
        list(load_shards(tmp_path, digests))


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr("os.fsync", _no_space)
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]  # the part is deleted: the disk is full
    (tmp_path / "result.json.partial").touch()
    remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def _no_space(_: int) -> None:
    raise OSError(28, "no space left on device")
