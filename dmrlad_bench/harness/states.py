"""An agent's state as JSON and arrays, and back: what is saved comes back exactly, and what could not is refused before it is saved.

Dicts, lists, tuples, numbers, strings, None, NumPy arrays and scalars, and torch's tensors may be nested. Arrays are named by number, so
that no two keys can mean the same one. A dict with a key that begins with `$` stands for what JSON lacks. Of torch's values only numbers,
shape and type are kept: a parameter comes back as a tensor on the CPU, an OrderedDict as a dict.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import Any

import numpy as np

from dmrlad_bench.cards.foreign import message_of, printable

HOLDS = "a checkpoint holds dicts, lists, tuples, arrays, tensors, numbers and strings"
NAMES = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)), "float16", "float32", "float64")
DTYPES = tuple(np.dtype(name) for name in NAMES)  # in the byte order of the machine
DEEPEST = 100  # far beyond any agent's, and far from Python's own limit
SHORT_INTEGER = 2000  # bits; Python refuses to write much longer ones in decimal
BFLOAT16 = "bfloat16"  # torch's, which NumPy lacks: kept as the same bits in int16
LONGEST_KEY = 100


def flatten(state: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """JSON for `state`, and its arrays by the names that stand for them there.

    Raises:
        TypeError: something that would not come back as it is; one line that names the key and what is held.
    """
    saving = _Saving()
    return saving.value(state, ""), saving.arrays


def restore(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What `flatten` was given; any error that a content of another making leads to is raised as it comes."""
    if isinstance(tree, list):
        return [restore(entry, arrays) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if "$array" in tree:
        return arrays[tree["$array"]]
    if "$scalar" in tree:
        return arrays[tree["$scalar"]][()]
    if "$tensor" in tree:
        import torch  # the checkpoint of an agent without tensors is read without it

        tensor = torch.from_numpy(arrays[tree["$tensor"]].copy())
        return tensor.view(torch.bfloat16) if tree.get("dtype") == BFLOAT16 else tensor
    if "$int" in tree:
        return int(tree["$int"], 16)
    if "$tuple" in tree:
        return tuple(restore(entry, arrays) for entry in tree["$tuple"])
    if "$items" in tree:
        return {restore(key, arrays): restore(entry, arrays) for key, entry in tree["$items"]}
    return {key: restore(entry, arrays) for key, entry in tree.items()}


def shard_arrays(shard: Any) -> dict[str, np.ndarray]:
    """A replay shard's arrays, ready to be written; tensors among them become arrays.

    Raises:
        TypeError: no dict of arrays, or a name or a type that would not come back; one line.
    """
    if not isinstance(shard, dict):
        raise TypeError(f"expected a dict of arrays, got a {type(shard).__name__}")
    arrays: dict[str, np.ndarray] = {}
    for name, value in shard.items():
        if type(name) is not str or not name.isprintable() or name == "__metadata__":
            raise TypeError(f"expected names of printable text, got {_shown(name)}")
        try:
            array = np.asarray(value, order="C")
        except Exception as error:  # whatever a stranger's object raises when it is asked for an array
            raise TypeError(f"entry {_shown(name)} is no array: {message_of(error)}") from None
        if array.dtype not in DTYPES:
            raise TypeError(f"entry {_shown(name)} is an array of {array.dtype}; accepted: {', '.join(NAMES)}")
        arrays[name] = array
    return arrays


class _Saving:
    """The arrays met so far, and what the value at hand lies in."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._around: list[int] = []

    def value(self, value: Any, path: str) -> Any:
        """JSON for one value; `path` says in messages where it lies."""
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is str:
            return value
        if kind is int:
            return value if value.bit_length() <= SHORT_INTEGER else {"$int": hex(value)}
        if isinstance(value, np.generic):
            return {"$scalar": self._array(np.asarray(value), path, f"a {kind.__name__}")}
        if kind is np.ndarray:
            return {"$array": self._array(value, path, "a ndarray")}
        if "torch" in sys.modules and issubclass(kind, sys.modules["torch"].Tensor):  # who made a tensor has imported it
            return self._tensor(value, path)
        if kind in (dict, OrderedDict, list, tuple):
            return self._container(value, path)
        raise _refused(path, f"a {kind.__name__}")

    def _container(self, value: Any, path: str) -> Any:
        if id(value) in self._around:
            raise _refused(path, "a dict, list or tuple that holds itself")
        if len(self._around) == DEEPEST:
            raise _refused(path, f"nested more than {DEEPEST} deep")
        self._around.append(id(value))
        try:
            if isinstance(value, dict):
                return self._items(value, path)
            entries = [self.value(entry, f"{path}/{number}") for number, entry in enumerate(value)]
            return {"$tuple": entries} if isinstance(value, tuple) else entries
        finally:
            self._around.pop()

    def _items(self, value: dict[Any, Any], path: str) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.value(entry, f"{path}/{_in_path(key)}") for key, entry in value.items()}
        return {"$items": [[self._key(key, path), self.value(entry, f"{path}/{_in_path(key)}")] for key, entry in value.items()]}

    def _key(self, key: Any, path: str) -> Any:
        parts = key if type(key) is tuple else (key,)
        for part in parts:
            if (part is not None and type(part) not in (bool, int, float, str) and not isinstance(part, np.generic)) or part != part:
                raise _refused(path, f"a dict with the key {_shown(key)}: keys are strings, numbers, or tuples of these")
        return self.value(key, f"{path}/{_in_path(key)}")

    def _tensor(self, value: Any, path: str) -> dict[str, str]:
        import torch

        name = str(value.dtype).removeprefix("torch.")
        if value.layout != torch.strided or value.is_meta or name not in (*NAMES, BFLOAT16):
            raise _refused(path, f"a {'' if value.layout == torch.strided else 'sparse '}tensor of {name} on {value.device}", tensors=True)
        plain = value.detach().cpu().resolve_neg().contiguous()
        if name == BFLOAT16:
            return {"$tensor": self._array(plain.view(torch.int16).numpy(), path, "a tensor"), "dtype": BFLOAT16}
        return {"$tensor": self._array(plain.numpy(), path, "a tensor")}

    def _array(self, array: np.ndarray, path: str, what: str) -> str:
        if array.dtype not in DTYPES:
            raise _refused(path, f"{what} of {array.dtype if array.dtype.names is None else 'records'}", tensors=True)
        name = str(len(self.arrays))
        self.arrays[name] = np.asarray(array, order="C")
        return name


def _refused(path: str, what: str, tensors: bool = False) -> TypeError:
    accepted = f"; accepted types of arrays and tensors: {', '.join(NAMES)}, and bfloat16 in torch" if tensors else ""
    return TypeError(f"state entry {path or '/'!r} is {what}; {HOLDS}{accepted}")


def _in_path(key: Any) -> str:
    """A key as part of a path in a message: a string as it is, anything else in brackets."""
    return printable(key, LONGEST_KEY) if type(key) is str else f"[{_shown(key)}]"


def _shown(key: Any) -> str:
    try:
        return printable(repr(key), LONGEST_KEY)
    except Exception:  # an integer too long to write, or a stranger's object
        return f"a {type(key).__name__}"
