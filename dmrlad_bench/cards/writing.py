"""Writing files: whole or not at all, and never through a symbolic link, which may lead anywhere in a folder that came from elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from dmrlad_bench.cards.reading import CardError

PARTIAL = ".partial"


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old one or the new one, never a part.

    Raises:
        CardError: there is a symbolic link in the file's place, or in that of its temporary name.
    """
    partial = path.with_name(path.name + PARTIAL)
    refuse_link(path)
    refuse_link(partial)
    try:
        partial.unlink(missing_ok=True)  # not written into: it may be another name of a file elsewhere
        with os.fdopen(open_itself(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:  # a full disk: give back what the part took
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_itself(path: Path, flags: int) -> int:
    """Open a regular file by the flags of `os.open`; returns its descriptor.

    Raises:
        CardError: it is a symbolic link, or no regular file.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CardError(f"{path}: is no regular file; move it away")
    return descriptor


def refuse_link(path: Path) -> None:
    """Raises `CardError` where `path` is a symbolic link."""
    if path.is_symlink():
        raise CardError(f"{path}: is a symbolic link to {os.readlink(path)!r}, which is not written through; move it away")
