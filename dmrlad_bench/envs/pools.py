"""The native threads of `mujoco.rollout`: one pool for each number of threads, shared by all environments of the process."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass
class _Pool:
    """`mujoco.rollout`'s pool, which takes one batch at a time, how many hold it, and the process whose threads it has."""

    native: Any
    process: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    holders: int = 0


_pools: dict[int, _Pool] = {}
_registry = threading.Lock()


def _forget_pools() -> None:
    """A forked process has no threads but its own, so pools of its parent are none of its.

    Freeing one would wait for its threads, which are not here, for ever: their memory is given up.
    """
    global _registry
    for pool in _pools.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool.native.rollout_))
    _pools.clear()
    _registry = threading.Lock()


if hasattr(os, "register_at_fork"):  # not where processes cannot fork
    os.register_at_fork(after_in_child=_forget_pools)


class Stepper:
    """A hold on the process's pool of `threads` threads, which lives as long as someone holds it.

    Who steps while another thread of the program does waits for its turn. One thread needs no pool: steps are then taken where they
    are asked for. In a forked process, a hold is taken anew.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._take_hold()

    def _take_hold(self) -> None:
        threads = self._threads
        with _registry:
            if threads > 1:
                if threads not in _pools:
                    _pools[threads] = _Pool(_native(threads))
                self._pool = _pools[threads]
                self._pool.holders += 1
            else:
                self._pool = _Pool(_native(0), holders=1)
        self._let_go = weakref.finalize(self, _release, self._pool, threads)

    def rollout(self, *arguments: Any, **options: Any) -> None:
        """As `mujoco.rollout.Rollout.rollout`, whose results are those of the buffers given."""
        if self._pool.process != os.getpid():
            self._let_go.detach()
            self._take_hold()
        with self._pool.lock:
            self._pool.native.rollout(*arguments, **options)

    def close(self) -> None:
        """Let go, as also happens to who is no longer referred to; may be called twice."""
        self._let_go()


def _release(pool: _Pool, threads: int) -> None:
    if pool.process != os.getpid():
        return
    with _registry:
        pool.holders -= 1
        if pool.holders == 0:
            pool.native.close()
            if _pools.get(threads) is pool:
                del _pools[threads]


def _native(threads: int) -> Any:
    return import_module("mujoco.rollout").Rollout(nthread=threads)
