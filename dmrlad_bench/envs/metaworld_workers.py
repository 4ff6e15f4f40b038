"""Processes that run Meta-World's environments, a share of the rows each.

A worker is a fresh interpreter that talks over a socket pair: nothing is forked, the caller's main module is not imported again, and
a worker whose parent is gone reads the end of its socket and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np

from dmrlad_bench.envs.metaworld_simulators import STATE, Simulators

SECONDS_TO_END = 10.0


class SimulatorEnded(RuntimeError):
    """A process that runs Meta-World has ended by itself; the message is one line."""


class Workers:
    """`Simulators` spread over processes: row `i` is lived by process `i % processes`."""

    def __init__(self, processes: int) -> None:
        self._connections: list[Connection] = []
        self._processes: list[subprocess.Popen[Any]] = []
        self._begun: list[int] = []
        self._owner = os.getpid()
        for _ in range(processes):
            ours, theirs = Pipe()
            command = f"from dmrlad_bench.envs.metaworld_workers import serve; serve({theirs.fileno()})"
            paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
            environment = {**os.environ, "PYTHONPATH": paths}
            # -P: only what this process imports from is imported from, so not the current folder by itself
            options: dict[str, Any] = {"pass_fds": [theirs.fileno()], "env": environment, "stdin": subprocess.DEVNULL}
            self._processes.append(subprocess.Popen([sys.executable, "-P", "-c", command], **options))
            self._connections.append(ours)
            theirs.close()

    @property
    def own(self) -> bool:
        """Whether this process started them; a forked child shares its parent's sockets, and would take its answers."""
        return self._owner == os.getpid()

    def begin(self, row: int, task: np.ndarray) -> None:
        """Start an episode in a row, without waiting for it."""
        self._begun.append(row)
        self._send(row, ("begin", row, task))

    def started(self) -> dict[int, np.ndarray]:
        """First states of the episodes begun since the last call, by row."""
        begun, self._begun = self._begun, []
        return {row: self._receive(row) for row in begun}

    def step(self, rows: Sequence[int], actions: np.ndarray) -> np.ndarray:
        """States `(len(rows), STATE)` after actions `(len(rows), 4)`; the processes work at the same time."""
        states, shares = np.empty((len(rows), STATE)), []
        for process in range(len(self._connections)):
            share = [number for number, row in enumerate(rows) if row % len(self._connections) == process]
            if share:
                self._send(process, ("step", [rows[number] for number in share], actions[share]))
                shares.append((process, share))
        for process, share in shares:
            states[share] = self._receive(process)
        return states

    def _send(self, row: int, request: tuple[Any, ...]) -> None:
        try:
            self._connections[row % len(self._connections)].send(request)
        except OSError as error:
            raise self._ended(row) from error

    def _receive(self, row: int) -> np.ndarray:
        try:
            reply = self._connections[row % len(self._connections)].recv()
        except (EOFError, OSError) as error:
            raise self._ended(row) from error
        if isinstance(reply, str):
            raise RuntimeError(f"a process that runs Meta-World failed: {reply}")
        return reply

    def _ended(self, row: int) -> SimulatorEnded:
        """How the process of a row ended."""
        try:
            code = self._processes[row % len(self._processes)].wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # its socket is gone, and it is not
            return SimulatorEnded("a simulator process does not answer")
        if code == -signal.SIGKILL:
            return SimulatorEnded("a simulator process was killed (out of memory?)")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return SimulatorEnded(f"a simulator process {how}")

    def close(self) -> None:
        """End the processes; they are gone when this returns. Those of the process that forked this one are left alone."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if not self.own:
                process.returncode = 0  # not ours to wait for
                continue
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._connections.clear()
        self._processes.clear()


def serve(descriptor: int) -> None:
    """What a worker does: requests from a socket in order, each answered by states, or by a line of text where it failed."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # what stops a program goes to its whole group; the parent says when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    connection, simulators = Connection(descriptor), Simulators()
    while True:
        try:
            kind, rows, content = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if kind == "begin":
                simulators.begin(rows, content)
                reply: Any = simulators.started()[rows]
            else:
                reply = simulators.step(rows, content)
        except Exception as error:  # told to the parent, which raises it
            reply = f"{type(error).__name__}: {' '.join(str(error).split())}"
        try:
            connection.send(reply)
        except OSError:
            return
