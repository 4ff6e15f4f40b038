"""What stops a program from outside: Ctrl-C, a termination signal, a terminal that is closed."""

from __future__ import annotations

import signal
import time
from types import FrameType

STOPPING = frozenset(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # no SIGHUP on Windows
SAME_REQUEST = 10.0  # seconds: schedulers signal a whole group, so a worker hears of it from them and from its parent


class _Stop:
    """A signal handler that raises `KeyboardInterrupt`; signals that follow soon are the same request, not one to stop the stopping."""

    def __init__(self) -> None:
        self._heard = float("-inf")

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._heard >= SAME_REQUEST:
            self._heard = now
            raise KeyboardInterrupt


def interrupt_on_signals(ignored: frozenset[signal.Signals] = frozenset()) -> None:
    """Every signal of `STOPPING` interrupts as Ctrl-C does, also where a shell started us with Ctrl-C ignored; `ignored` ones do nothing.

    A SIGHUP that is ignored already, as `nohup` has it, stays so.
    """
    stop = _Stop()
    for number in STOPPING:
        if number in ignored:
            signal.signal(number, signal.SIG_IGN)
        elif number in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)
