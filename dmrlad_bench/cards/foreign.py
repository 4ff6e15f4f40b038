"""Code of anyone's: importing it, and putting whatever it raises into one line that can be printed."""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dmrlad_bench.cards.reading import CardError

LONGEST_MESSAGE = 500


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever foreign code raises in the block into a `CardError` that begins with `what`.

    Exceptions that are none of `Exception` are meant, too: a module that ends the program would end it as if all were done.
    """
    try:
        yield
    except (CardError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise CardError(f"{what}: {described(error)}") from error


def import_foreign(module_name: str, what: str) -> ModuleType:
    """Import a module of anyone's; raises `CardError` that begins with `what`, whatever it raises."""
    try:
        return importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise CardError(f"{what}: {described(error)}") from error


def described(error: BaseException, *skip: str) -> str:
    """Type, message, and the innermost place outside of the libraries and of the files `skip`: one line."""
    library = Path(sysconfig.get_path("stdlib"))
    frames = traceback.extract_tb(error.__traceback__)
    places = [(Path(frame.filename), frame.lineno) for frame in frames if frame.filename[:1] not in ("", "<")]
    places = [(path, line) for path, line in places if path not in {*map(Path, skip), Path(__file__)} and not path.is_relative_to(library)]
    own = [(path, line) for path, line in places if "site-packages" not in path.parts] or places
    return named(error) + (f" ({own[-1][0]}:{own[-1][1]})" if own else "")


def named(error: BaseException) -> str:
    """Type and message of an exception: one line."""
    text = message_of(error)
    return f"{type(error).__name__}{text and f': {text}'}"


def message_of(error: BaseException) -> str:
    """The text of an exception as one line that any terminal shows: a text that cannot be had is said to be none."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # foreign code again
        return "(its text cannot be printed)"
    return printable(" ".join(text.split()))


def printable(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """`text` with control characters and lone surrogates as escapes, cut where it is too long."""
    shown = "".join(map(_printable, text[:longest]))
    return shown if len(text) <= longest else f"{shown} ..."


def _printable(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
