"""The readers of a folder: nothing in it is replaced while a process reads it for long.

Every reader holds a shared ``flock`` on `FOLDER/readers.lock`, a writer needs it alone. The kernel releases it when a
process ends. Each reader adds a line that describes it, for messages only. A reader that may not write in the folder
locks the file where there is one; where the file system has no ``flock``, nobody is kept out.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ernie2.errors import FolderInUse
from ernie2.storage.locks import describe_process, flock, process_name

NAME = "readers.lock"
_MOST_BYTES = 1 << 20
_held: set[int] = set()


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep `folder` from being replaced; waits while it is being replaced."""
    descriptor = _open_to_read(folder / NAME)
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        flock(descriptor, fcntl.LOCK_SH)
        with suppress(OSError):  # read-only, or a full disk: a reader that no message names
            os.write(descriptor, json.dumps(describe_process()).encode() + b"\n")
        yield
    finally:
        with suppress(OSError):  # the last reader leaves no lines
            if flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a child that was forked just now may not have closed it yet
            flock(descriptor, fcntl.LOCK_UN)
        _held.discard(descriptor)
        os.close(descriptor)


@contextmanager
def without_readers(folder: Path, *, otherwise: str) -> Iterator[None]:
    """Keep readers waiting while this process replaces what is in `folder`, which must exist.

    Raises `FolderInUse`, naming the readers, where there are some, and `OSError` where no lock can be written.
    """
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            names = " and ".join(_readers(descriptor)) or "another process"
            raise FolderInUse(f"{folder} is being read by {names}. Wait for it or stop it; {otherwise}.") from error
        yield
    finally:
        os.close(descriptor)


def _open_to_read(file: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT | os.O_APPEND, os.O_RDONLY):
        with suppress(OSError):
            return os.open(file, flags | os.O_NOFOLLOW, 0o666)
    return None


def _readers(descriptor: int) -> list[str]:
    """The processes that described themselves and may still be there, each once."""
    names: dict[str, None] = {}
    for line in os.pread(descriptor, _MOST_BYTES, 0).splitlines():
        with suppress(ValueError, RecursionError):
            reader = json.loads(line)
            if isinstance(reader, dict) and _may_live(reader):
                names[process_name(reader)] = None
    return list(names)


def _may_live(reader: dict[str, Any]) -> bool:
    if reader.get("host") != describe_process()["host"] or not isinstance(reader.get("pid"), int):
        return True
    try:
        os.kill(reader["pid"], 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _forget_in_child() -> None:
    """Close what a forked child inherited: it would hold the lock longer than the reader does."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
