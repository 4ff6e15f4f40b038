"""How a run may end before its end. Light to import: the command line turns these into exit codes."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """A run stopped by its own fault; the message is one line."""


class Stopped(RunFailed):
    """A run that whoever watched it stopped before its end, as tuning does; what is there can be continued."""


class Interrupted(KeyboardInterrupt):
    """A run was interrupted; the message says what is saved and how to continue."""
