"""What commands say: tables on standard output, one line for each error on standard error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from rich.console import Console

from dmrlad_bench.cards import CardError
from dmrlad_bench.cli.fitting import fitted

PROGRAM = "dmrlad-bench"
PIPED_WIDTH = 160
RULED = str.maketrans("│┃┼┿╇╈╪├┤┡┩┢┪┌┐└┘┏┓┗┛┬┴┳┻╋─━", "||++++++++++++++++++++++++--")


class _Console(Console):
    """Fits tables to a terminal, and leaves a broken pipe to the program."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(fitted(entry, self.width) for entry in objects) if self.is_terminal else objects, **options)

    def on_broken_pipe(self) -> None:
        raise  # the `BrokenPipeError` under way; Rich would end the program here


def table_console() -> Console:
    """Standard output: a plain table of fixed width where it is not a terminal. Text is shown as it is: nothing in it is markup."""
    options: dict[str, Any] = {"file": sys.stdout, "highlight": False, "markup": False, "emoji": False}
    console = _Console(**options)
    return console if console.is_terminal else _Console(**options, width=PIPED_WIDTH)


def write_text(text: str) -> None:
    """Write text that may hold tables to standard output; where its encoding knows no ruled lines, they are drawn in ASCII."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(RULED)
    sys.stdout.write(text)


def fail(message: str, code: int) -> int:
    """Say in one line on standard error why the program ends with `code`, and return `code`."""
    line = "\\n".join(message.splitlines())
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(f"{PROGRAM}: {line}" if code == 130 else f"{PROGRAM}: error: {line}", file=sys.stderr)
    return code


def open_outputs() -> None:
    """Make the streams usable before anything is written.

    A character that standard output has no code for is written as `\\u....`. Where the program was started without standard input or
    standard error, they are the null device: otherwise the next file that is opened, perhaps a checkpoint, would take their place, and
    receive what libraries print.

    Raises:
        CardError: it was started without standard output.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
    if sys.stdout is None:
        raise CardError("standard output is closed, and that is where results go; expected a terminal, a file, a pipe or /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def give_up_output() -> None:
    """Standard output cannot be written: what is left in its buffer must not fail again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Shown:
    """Prints results as they come. Output that cannot be written stops no run: what it raised is raised again at the end."""

    def __init__(self) -> None:
        self._console = table_console()
        self._fault: OSError | None = None

    def print(self, *what: Any, soft_wrap: bool = False) -> None:
        """Print, unless printing has failed before."""
        if self._fault is None:
            try:
                self._console.print(*what, soft_wrap=soft_wrap)
            except OSError as error:
                self._fault = error

    def finish(self) -> None:
        """Raises what printing raised; a reader that left has missed nothing that it wanted."""
        if isinstance(self._fault, BrokenPipeError):
            give_up_output()
        elif self._fault is not None:
            raise self._fault
