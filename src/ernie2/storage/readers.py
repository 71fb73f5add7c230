"""Reader-writer lock of a folder: its files are not replaced while a process reads them.

Every reader holds a shared ``flock`` on `FOLDER/readers.lock`, a writer an exclusive one. The kernel releases it when
the process ends. Each reader appends a line that describes it, for messages only. A reader without write permission
locks the file if it exists. On a file system without ``flock`` nothing is locked.
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

LOCK_FILE = "readers.lock"
_MAX_BYTES = 1 << 20
_held: set[int] = set()


@contextmanager
def reader_lock(folder: Path) -> Iterator[None]:
    """Hold a shared lock that prevents the replacement of `folder`; wait if it is being replaced."""
    descriptor = _open_to_read(folder / LOCK_FILE)
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    try:
        flock(descriptor, fcntl.LOCK_SH)
        with suppress(OSError):  # read-only file or full disk: messages cannot name this reader
            os.write(descriptor, json.dumps(describe_process()).encode() + b"\n")
        yield
    finally:
        with suppress(OSError):  # the last reader empties the file
            if flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a child forked just now may not have closed it yet
            flock(descriptor, fcntl.LOCK_UN)
        _held.discard(descriptor)
        os.close(descriptor)


@contextmanager
def writer_lock(folder: Path, *, alternative: str) -> Iterator[None]:
    """Hold an exclusive lock while this process replaces files of `folder`, which must exist; new readers wait.

    Raises `FolderInUse`, with the readers, if there are any, and `OSError` if the lock file cannot be written.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            names = " and ".join(_readers(descriptor)) or "another process"
            raise FolderInUse(f"{folder} is being read by {names}. Wait for it or stop it; {alternative}.") from error
        yield
    finally:
        os.close(descriptor)


def _open_to_read(file: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT | os.O_APPEND, os.O_RDONLY):
        with suppress(OSError):
            return os.open(file, flags | os.O_NOFOLLOW, 0o666)
    return None


def _readers(descriptor: int) -> list[str]:
    """Return the readers listed in the file that may still be running, without duplicates."""
    names: dict[str, None] = {}
    for line in os.pread(descriptor, _MAX_BYTES, 0).splitlines():
        with suppress(ValueError, RecursionError):
            reader = json.loads(line)
            if isinstance(reader, dict) and _may_be_alive(reader):
                names[process_name(reader)] = None
    return list(names)


def _may_be_alive(reader: dict[str, Any]) -> bool:
    if reader.get("host") != describe_process()["host"] or not isinstance(reader.get("pid"), int):
        return True
    try:
        os.kill(reader["pid"], 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _close_in_child() -> None:
    """Close the descriptors that a forked child inherited, as it would hold the lock longer than the reader."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
