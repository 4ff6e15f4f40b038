"""What a run writes while it goes: `progress.csv` and TensorBoard events; and scalars as text."""

from __future__ import annotations

import csv
import io
import math
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from dmrlad_bench.cards.writing import open_itself, write_atomic
from dmrlad_bench.harness.progress_table import PROGRESS_FILE, damage, read_rows

LEADING = ("iteration", "environment_steps", "gradient_updates", "seconds")


class Table:
    """`progress.csv`: one row an iteration. A new column rewrites the file; a row is otherwise appended."""

    def __init__(self, path: Path, last_iteration: int) -> None:
        self.path = path
        self.columns: list[str] = list(LEADING)
        self.rows, unreadable = read_rows(path, last_iteration)
        self.damage = damage(path, self.rows, unreadable, last_iteration)
        for row in self.rows:
            self.columns += [name for name in row if name not in self.columns]
        self._rewrite()

    def add(self, row: dict[str, float]) -> None:
        """Append one row."""
        text = {name: _number(value) for name, value in row.items()}
        self.rows.append(text)
        new = [name for name in text if name not in self.columns]
        if new:
            self.columns += new
            self._rewrite()
        else:
            descriptor = open_itself(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "a", newline="", encoding="utf-8") as file:
                file.write(self._format([text]))
                file.flush()
                os.fsync(file.fileno())  # the row stands before the checkpoint that says the iteration is over

    def _rewrite(self) -> None:
        head = {name: name for name in self.columns}  # written as rows are, so that a comma in a name is no end of it
        write_atomic(self.path, self._format([head, *self.rows]).encode())

    def _format(self, rows: list[dict[str, str]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, restval="", lineterminator="\n").writerows(rows)
        return text.getvalue()


def reconstruction_updates(folder: Path) -> int:
    """How many of a run's gradient updates trained task inference, as its `progress.csv` says; 0 where it does not say it of every row."""
    rows, unreadable = read_rows(folder / PROGRESS_FILE, 2**63)
    counts = [float(row.get("losses/reconstruction_updates") or 0) for row in rows]
    return 0 if unreadable or not all(0 <= count < 2**53 for count in counts) else round(math.fsum(counts))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


class Events:
    """A new TensorBoard event file of the folder. Written at once: in a `SummaryWriter`'s thread a full disk ends in a traceback.

    Args:
        folder: the run folder.
        purge_step: environment steps from which earlier event files of the folder do not count any more; None = all of them count.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        seconds, nanoseconds = divmod(time.time_ns(), 10**9)  # TensorBoard reads the files in the order of their names
        name = f"events.out.tfevents.{seconds:010}.{nanoseconds:09}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._proto: tuple[Any, Any] = event_pb2, summary_pb2  # their classes are made at run time, so no type checker knows them
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            session = self._proto[0].SessionLog
            self._write(step=purge_step, session_log=session(status=session.START))

    def add(self, scalars: dict[str, float], step: int) -> None:
        """Record scalars at one step."""
        summary = self._proto[1].Summary
        values = [summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step=step, summary=summary(value=values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._proto[0].Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()


class RunLog:
    """Writes one run's scalars; a context manager that closes what it opened.

    Args:
        folder: the run folder.
        start: (iteration, environment steps) of the checkpoint that is continued; (0, 0) for a new run.
    """

    def __init__(self, folder: Path, start: tuple[int, int]) -> None:
        iteration, steps = start
        self.table = Table(folder / PROGRESS_FILE, iteration)
        if self.table.damage:
            print(self.table.damage, file=sys.stderr)  # also where quiet
        self.events = Events(folder, steps + 1 if iteration or any(folder.glob("events.out.tfevents.*")) else None)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.events.close()

    def iteration(self, row: dict[str, float]) -> None:
        """Record one iteration: the `LEADING` columns, then `charts/...`, `losses/...` and `eval/...`."""
        self.table.add(row)
        self.events.add({name: value for name, value in row.items() if name not in LEADING}, int(row["environment_steps"]))


def scores_text(row: dict[str, float]) -> str:
    """`test return -80.1/-62.3/-60.0, test success 0/0.1/0.2`: one number for each episode of the trial; empty without scores."""
    parts: dict[str, list[str]] = {}
    for name, value in row.items():
        if name.startswith("eval/"):
            what, _, _ = name.removeprefix("eval/").rpartition("_")
            parts.setdefault(what.replace("_", " "), []).append(f"{value:.4g}")
    return ", ".join(f"{what} {'/'.join(values)}" for what, values in parts.items())


def evaluation_columns(name: str, scores: Any) -> dict[str, float]:
    """`eval/<name>_return_<k>` and `eval/<name>_success_<k>` of trial scores, k counted from 1."""
    columns: dict[str, float] = {}
    for number, (mean, rate) in enumerate(zip(scores.mean_returns, scores.success_rates, strict=True), start=1):
        columns[f"eval/{name}_return_{number}"] = float(mean)
        columns[f"eval/{name}_success_{number}"] = float(rate)
    return columns
