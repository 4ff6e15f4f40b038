"""A run that something unexpected ended: one line of what it was, and the whole traceback in a file of the run folder."""

from __future__ import annotations

import traceback
from pathlib import Path

from dmrlad_bench.cards.foreign import described
from dmrlad_bench.cards.writing import write_atomic
from dmrlad_bench.harness.errors import RunFailed

ERROR_FILE = "error.log"


def unexpected(folder: Path, error: BaseException) -> RunFailed:
    """What a run ends with that raised `error`: its type, text and place in one line; the traceback is written to the run folder."""
    return RunFailed(f"{folder}: stopped: {described(error)}; {written_traceback(folder, error)}")


def written_traceback(folder: Path, error: BaseException) -> str:
    """Write the traceback of `error` to `error.log`; returns where it is, or why it is nowhere: a full disk must not hide the fault."""
    path = folder / ERROR_FILE
    try:
        write_atomic(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"))
    except (OSError, MemoryError) as fault:
        return f"its traceback cannot be written to {path}: {getattr(fault, 'strerror', None) or 'out of memory'}"
    return f"traceback: {path}"
