"""A run that something unexpected ended: one line of what it was, and the whole traceback in a file of the run folder."""

from __future__ import annotations

import traceback
from pathlib import Path

from dmrlad_bench.harness.checkpoint import write_atomic
from dmrlad_bench.harness.errors import RunFailed

ERROR_FILE = "error.log"
LONGEST_TEXT = 400  # some libraries put a stack of their own into an exception's text


def unexpected(folder: Path, error: BaseException) -> RunFailed:
    """What a run ends with that raised `error`: its type and text in one line; the traceback is written to the run folder."""
    return RunFailed(f"{folder}: stopped: {one_line(error)}; {written_traceback(folder, error)}")


def written_traceback(folder: Path, error: BaseException) -> str:
    """Write the traceback of `error` to `error.log`; returns where it is, or why it is nowhere: a full disk must not hide the fault."""
    path = folder / ERROR_FILE
    try:
        write_atomic(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    except (OSError, MemoryError) as fault:
        return f"its traceback cannot be written to {path}: {getattr(fault, 'strerror', None) or 'out of memory'}"
    return f"traceback: {path}"


def one_line(error: BaseException) -> str:
    """Type and text of an exception, shortened where the text is long."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # anyone's exception may fail to say what it is
        text = "(its text cannot be had)"
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
