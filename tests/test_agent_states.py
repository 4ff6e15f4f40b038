"""What an agent of anyone's wants saved comes back exactly, or is refused in one line that names it."""

from __future__ import annotations

import enum
import hashlib
import json
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from test_checkpoint import assert_same

from dmrlad_bench.cards import CardError
from dmrlad_bench.harness.checkpoint import load_checkpoint, save_checkpoint, save_shard

ARRAY = np.arange(3.0)


def kept(folder: Path, state: Any) -> Any:
    save_checkpoint(folder, 1, {"agent": state})
    return load_checkpoint(folder, 1)["agent"]


COLLIDING = {
    "a path": {"a/b": ARRAY, "a": {"b": ARRAY + 1}},
    "text and number": {1: ARRAY, "1": ARRAY + 1},
    "number and float": {"x": {2: ARRAY, 2.5: ARRAY + 1, "2": ARRAY + 2, True: 5}},
    "list and dict": {"a": [ARRAY, ARRAY + 1], "a/0": ARRAY + 2, "a/1": torch.ones(2)},
    "empty keys": {"": ARRAY, "/": ARRAY + 1, "//": {"": ARRAY + 2}},
    "dollars": {"$array": ARRAY, "$tensor": "x", "$items": [1], "$tuple": (1,), "$int": 3, "$scalar": {"$array": "0"}},
    "tuples": {("a", 1): ARRAY, ("a", "1"): ARRAY + 1, (): ARRAY + 2, (None, 0.5): 3},
    "none and text": {None: ARRAY, "None": ARRAY + 1, "null": 3},
    "NumPy's numbers": {np.int64(3): ARRAY, "3": ARRAY + 1, (np.int8(1), "x"): 2},
    "infinite keys": {float("inf"): 1, float("-inf"): 2, "inf": 3},
    "long keys": {10**5000: ARRAY, "x" * 10_000: ARRAY + 1},
}


@pytest.mark.parametrize("name", COLLIDING)
def test_no_two_keys_mean_the_same_array(tmp_path: Path, name: str) -> None:
    loaded = kept(tmp_path, COLLIDING[name])
    assert_same(loaded, COLLIDING[name])
    assert [type(key) for key in loaded] == [type(key) for key in COLLIDING[name]]


VALUES = [
    *(np.ones((2, 3), dtype=dtype) for dtype in ("bool", "int8", "uint16", "uint64", "float16", "float32", "float64")),
    *(np.float32(0.1), np.float64(0.1), np.int8(-3), np.bool_(True), np.float16(0.5), np.uint64(2**64 - 1)),
    *(torch.full((2,), 3, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.bool)),
    *(torch.tensor(1.5, dtype=torch.bfloat16), torch.zeros((0, 3), dtype=torch.bfloat16), torch.ones(3, 4).T[1:]),
    *(10**5000, -(10**5000), 2**63, -0.0, float("inf"), float("-inf")),
    *("\ud800 lone", "a\nb\x1b[31m\x00", "é", ()),
    *([], {}, ((1,), [2, (3,)])),
    np.array([np.nan, np.inf, -0.0]),
    torch.tensor([float("nan"), float("inf")]),
]


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values_come_back_as_they_were(tmp_path: Path, number: int) -> None:
    value = VALUES[number]
    loaded = kept(tmp_path, {"value": value})["value"]
    if isinstance(value, torch.Tensor):
        assert type(loaded) is torch.Tensor
        assert (loaded.dtype, loaded.shape) == (value.dtype, value.shape)
        assert torch.equal(loaded.nan_to_num(7.0), value.nan_to_num(7.0)) if value.is_floating_point() else torch.equal(loaded, value)
    else:
        assert_same(loaded, value)
    if isinstance(loaded, np.ndarray):
        assert loaded.flags.writeable
        assert loaded.base is None or not np.shares_memory(loaded, value)


def test_a_number_that_is_none_comes_back(tmp_path: Path) -> None:
    (loaded,) = kept(tmp_path, [float("nan")])
    assert loaded != loaded


def test_what_torch_makes_comes_back_as_torch_takes_it(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    weight = network.get_parameter("0.weight")
    loaded = kept(tmp_path, {"network": network.state_dict(), "weight": weight})
    network.load_state_dict(loaded["network"])
    assert type(loaded["network"]) is dict
    assert torch.equal(loaded["weight"], weight)


def ring() -> Any:
    state: dict[str, Any] = {"inner": []}
    state["inner"].append({"back": state})
    return state


def deep() -> Any:
    state: Any = 1
    for _ in range(5000):
        state = [state]
    return state


class Named(enum.IntEnum):
    ONE = 1


class Text(str): ...


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise SystemExit(0)


Pair = namedtuple("Pair", "first second")
REFUSED = {
    "longdouble": (np.ones(2, dtype=np.longdouble), "is a ndarray of float128"),
    "longdouble scalar": (np.longdouble(1), "is a longdouble of float128"),
    "complex": (1j, "is a complex"),
    "complex array": (np.ones(2, dtype=complex), "is a ndarray of complex128"),
    "complex tensor": (torch.ones(2, dtype=torch.complex64), "is a tensor of complex64"),
    "objects": (np.array([{}, 1], dtype=object), "is a ndarray of object"),
    "text array": (np.array(["a"]), "is a ndarray of <U1"),
    "dates": (np.array(["2020"], dtype="datetime64[s]"), "is a ndarray of datetime64"),
    "records": (np.zeros(2, dtype=[("a\nb", "f8")]), "is a ndarray of records"),
    "other byte order": (np.ones(2, dtype=np.dtype("f8").newbyteorder()), "is a ndarray of >f8"),
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), "is a MaskedArray"),
    "sparse": (torch.eye(3).to_sparse(), "is a sparse tensor of float32"),
    "float8": (torch.ones(2).to(torch.float8_e4m3fn), "is a tensor of float8_e4m3fn"),
    "without content": (torch.ones(2, device="meta"), "is a tensor of float32 on meta"),
    "circle": (ring(), "is a dict, list or tuple that holds itself"),
    "depth": (deep(), "is nested more than 100 deep"),
    "object": (object(), "is a object"),
    "silent": (Silent(), "is a Silent"),
    "function": (print, "is a builtin_function_or_method"),
    "set": ({1, 2}, "is a set"),
    "bytes": (b"abc", "is a bytes"),
    "enum": (Named.ONE, "is a Named"),
    "own text": (Text("a"), "is a Text"),
    "NumPy text": (np.str_("a"), "is a str_ of <U1"),
    "named tuple": (Pair(1, 2), "is a Pair"),
    "counter": (Counter("aab"), "is a Counter"),
    "default": (defaultdict(list), "is a defaultdict"),
    "generator": (np.random.default_rng(0), "is a Generator"),
    "frozenset key": ({frozenset(): 1}, "is a dict with the key frozenset()"),
    "object key": ({Silent(): 1}, "is a dict with the key a Silent"),
    "nested tuple key": ({((1,),): 1}, r"is a dict with the key ((1,),)"),
    "nan key": ({float("nan"): 1}, "is a dict with the key nan"),
    "enum key": ({Named.ONE: 1}, "is a dict with the key <Named.ONE: 1>"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_not_come_back_is_refused_when_it_is_saved(tmp_path: Path, name: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(TypeError) as caught:
        save_checkpoint(tmp_path, 1, {"agent": {"fine": 1, "it's\n": [0, value]}})
    text = str(caught.value)
    assert text.isprintable()
    assert text.startswith("state entry \"/agent/it's\\\\n/1")
    assert message in text
    assert "a checkpoint holds dicts, lists, tuples, arrays" in text
    assert list(tmp_path.iterdir()) == []


def test_the_same_list_twice_is_no_circle(tmp_path: Path) -> None:
    shared = [ARRAY]
    assert_same(kept(tmp_path, {"a": shared, "b": shared, "c": OrderedDict(d=shared)}), {"a": shared, "b": shared, "c": {"d": shared}})


SHARDS = [
    ([ARRAY], "expected a dict of arrays, got a list"),
    ({1: ARRAY}, "expected names of printable text, got 1"),
    ({"a\nb": ARRAY}, r"expected names of printable text, got 'a\\nb'"),
    ({"\ud800": ARRAY}, r"expected names of printable text, got '\\ud800'"),
    ({"__metadata__": ARRAY}, "expected names of printable text, got '__metadata__'"),
    ({"a": np.ones(2, dtype=np.longdouble)}, "entry 'a' is an array of float128"),
    ({"a": {"b": ARRAY}}, "entry 'a' is an array of object"),
    ({"a": [[1], [1, 2]]}, "entry 'a' is no array: "),
    ({"a": torch.ones(2, dtype=torch.bfloat16)}, "entry 'a' is no array: "),
]


@pytest.mark.parametrize(("shard", "message"), SHARDS)
def test_a_shard_is_a_dict_of_arrays(tmp_path: Path, shard: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        save_shard(tmp_path, 1, shard)
    assert message.replace("\\\\", "\\") in str(caught.value)
    assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


# ---- checkpoints of other making --------------------------------------------------------------------------------------------


def write_checkpoint(folder: Path, state: Any, arrays: dict[str, np.ndarray]) -> None:
    """As the program writes one, digests included, with any content."""
    tensors, content = safetensors.numpy.save(arrays), json.dumps(state)
    (folder / "checkpoint-000001.safetensors").write_bytes(tensors)
    head = {"format_version": 1, "iteration": 1, "tensors_sha256": hashlib.sha256(tensors).hexdigest()}
    head["state_sha256"] = hashlib.sha256(content.encode()).hexdigest()
    (folder / "checkpoint-000001.json").write_text(json.dumps({**head, "state": state}))


def test_checkpoints_whose_arrays_are_named_by_path_are_read(tmp_path: Path) -> None:
    """As they were written before arrays were numbered."""
    tree = {"agent": {"weights": {"$array": "/agent/weights"}, "bias": {"$tensor": "/agent/bias"}, "pair": {"$tuple": [1, 2]}}}
    tree["agent"]["items"] = {"$items": [[3, {"$array": "/agent/items/3"}], ["$odd", 2**200]]}
    arrays = {"/agent/weights": ARRAY, "/agent/bias": ARRAY + 1, "/agent/items/3": ARRAY + 2}
    write_checkpoint(tmp_path, tree, arrays)
    expected = {"weights": ARRAY, "bias": torch.from_numpy(ARRAY + 1), "pair": (1, 2), "items": {3: ARRAY + 2, "$odd": 2**200}}
    assert_same(load_checkpoint(tmp_path, 1)["agent"], expected)


CRAFTED = [
    *({"$array": "nope"}, {"$tensor": "nope"}, {"$scalar": "nope"}, {"$array": ["0"]}, {"$array": {}}),
    *({"$items": 3}, {"$items": [[1]]}, {"$items": [[[], 1]]}, {"$items": [[{}, 1]]}, {"$tuple": 3}, {"$int": 5}, {"$int": "x"}),
    {"$tensor": "0", "dtype": "bfloat16"},  # of three bytes
]


@pytest.mark.parametrize("tree", CRAFTED)
def test_a_content_that_refers_to_nothing_is_one_line(tmp_path: Path, tree: Any) -> None:
    write_checkpoint(tmp_path, {"agent": tree}, {"0": np.ones(3, dtype=np.int8)})
    with pytest.raises(CardError, match=r"000001\.json: corrupt checkpoint: its content refers to what is not there: ") as caught:
        load_checkpoint(tmp_path, 1)
    assert str(caught.value).isprintable()


def test_a_checkpoint_of_brackets_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000001.json").write_text("[" * 100_000)
    with pytest.raises(CardError, match="not the JSON that was written"):
        load_checkpoint(tmp_path, 1)
