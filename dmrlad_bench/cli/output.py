"""What commands say: tables on standard output, one line for each error on standard error."""

from __future__ import annotations

import sys

from rich.console import Console

PROGRAM = "dmrlad-bench"
PIPED_WIDTH = 140


def table_console() -> Console:
    """Standard output: a plain table of fixed width where it is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def fail(message: str, code: int) -> int:
    """Say in one line on standard error why the program ends with `code`, and return `code`."""
    print(f"{PROGRAM}: {message}" if code == 130 else f"{PROGRAM}: error: {message}", file=sys.stderr)
    return code
