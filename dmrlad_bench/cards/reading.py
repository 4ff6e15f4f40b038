"""Reading cards: where they lie, TOML to frozen models, errors in one line, digests."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

LONGEST_SHOWN = 200
FEW_KEYS = 12  # that an error lists
MOST_SUGGESTIONS = 3
KEYS_SHOWN = "all keys: dmrlad-bench agents NAME"
PACKAGE = Path(__file__).resolve().parent.parent


class CardError(ValueError):
    """Bad input in a card, an override or a name; the message is one line that names what, where and what is accepted."""


class CardModel(BaseModel):
    """Base of every card model: frozen, unknown keys are errors, numbers are never made from strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def register_folder(kind: str) -> Path:
    """Folder of the published cards of one kind (`envs`, `agents` or `leaderboards`).

    In a wheel they travel under `dmrlad_bench/_registers/`; in a checkout they are the top-level folders.
    """
    installed = PACKAGE / "_registers" / kind
    return installed if installed.is_dir() else PACKAGE.parent / kind


def nearest(name: str, accepted: Iterable[str]) -> str:
    """`' (did you mean X?)'` where known names are what `name` may stand for, else the empty string.

    A name stands for another by its initials (`lr`, `learning_rate`), as a part of it, or by a slip of the keyboard, in this order.
    Of dotted keys the last part counts, unless `name` is dotted, too.
    """
    known, asked = list(accepted), name.lower()

    def own(entry: str) -> str:
        return (entry if "." in name else entry.rpartition(".")[2]).lower()

    def initials(entry: str) -> str:
        section, dot, key = own(entry).rpartition(".")
        return section + dot + "".join(word[:1] for word in re.split(r"[_-]", key))

    found = [entry for entry in known if len(asked) > 1 and initials(entry) == asked]
    if not found and len(asked) > 3:
        found = [entry for entry in known if asked in own(entry)][:MOST_SUGGESTIONS]
    if not found:
        lowered = {own(entry): entry for entry in reversed(known)}
        found = [lowered[close] for close in difflib.get_close_matches(asked, lowered, n=1, cutoff=0.6)]
    return f" (did you mean {' or '.join(map(repr, found[:MOST_SUGGESTIONS]))}?)" if found else ""


def read_toml(path: Path) -> dict[str, Any]:
    """Parse one TOML file; unreadable or malformed files raise `CardError`."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path}: not valid TOML: {error}") from None
    except ValueError as error:  # a name that no file can have
        raise CardError(f"{str(path)!r}: cannot be read: {error}") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML; malformed, too deep or too long, it is a `CardError` that begins with `where`."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise CardError(f"{where}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # malformed, or a number of thousands of digits
        raise CardError(f"{where}: not valid TOML: {str(error).partition(';')[0]}") from None


def parse_json(text: bytes | str, where: str) -> Any:
    """Parse JSON, without `NaN` and infinities; malformed, too deep or too long, it is a `CardError` that begins with `where`."""
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise CardError(f"{where}: truncated or not JSON: nested too deeply") from None
    except ValueError as error:
        raise CardError(f"{where}: truncated or not JSON: {str(error).partition(';')[0]}") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def validate(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Build `model` from `content`; the first fault becomes one line naming `where`, the key, the value and what is accepted."""
    try:
        return model.model_validate_json(json.dumps(content, default=str), strict=True)
    except RecursionError:
        raise CardError(f"{where}: a value is nested too deeply") from None
    except ValidationError as error:
        fault = error.errors()[0]
        raise CardError(f"{where}: {_describe(model, fault)}") from None


def _describe(model: type[BaseModel], fault: Any) -> str:
    location = [part for part in fault["loc"] if not str(part).startswith("function-")]
    key = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        accepted = sorted(owner.model_fields) if owner else []
        known = f"; accepted: {', '.join(accepted)}" if len(accepted) <= FEW_KEYS else f"; {KEYS_SHOWN}"
        return f"unknown key {key!r}{nearest(str(location[-1]), accepted)}{known}"
    if fault["type"] == "missing":
        return f"key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    given = repr(fault["input"])
    shown = f", got {given}" if key and len(given) <= LONGEST_SHOWN else ""  # a whole list of tasks says nothing more
    return f"{f'key {key!r}: ' if key else ''}{message}{shown}"


def _model_at(model: type[BaseModel], location: list[Any]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or part not in current.model_fields:
            return None
        current = _model_in(current.model_fields[part].annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)
    return None


def unused(model: BaseModel, later: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Which of the `later` keys (by section; "" is the model itself) keep their defaults, in pydantic's form of what to exclude.

    Keys that came after the first published cards are left out of the digest of a card that does not use them, so that a new key never
    changes the digest of what was published before it.
    """
    found: dict[str, Any] = {}
    for section, keys in later.items():
        owner = getattr(model, section) if section else model
        if owner is None:
            continue
        kept = {key: True for key in keys if getattr(owner, key) == type(owner).model_fields[key].default}
        found.update(kept if not section else {section: kept} if kept else {})
    return found


def digest(content: BaseModel, exclude: set[str] | dict[str, Any] | None = None) -> str:
    """SHA-256 of a model's canonical JSON (sorted keys, no spaces), without the keys in `exclude` (pydantic's form)."""
    canonical = json.dumps(content.model_dump(mode="json", exclude=exclude), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
