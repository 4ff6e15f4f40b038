"""Turns of the runs that share a process: one launches a GPU's work for a while, then another.

Every operation of torch lets go of Python's interpreter, and threads that launch many small ones would hand it over at each, which costs
more than the operation. A turn is some hundred updates, or an action; losses are waited for outside of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

_lock: AbstractContextManager[object] | None = None


def turn() -> AbstractContextManager[object]:
    """What a stretch of launches runs in; without effect unless turns are taken."""
    return nullcontext() if _lock is None else _lock


@contextmanager
def taking_turns() -> Iterator[None]:
    """Let the threads of this process take turns."""
    global _lock
    _lock = threading.RLock()
    try:
        yield
    finally:
        _lock = None
