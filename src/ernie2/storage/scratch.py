"""Temporary files and databases beside a result, for work that needs more than memory; gone at the end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ernie2.errors import StorageError
from ernie2.storage.atomic import WHAT_NOW, scratch_folder

_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "locking_mode=EXCLUSIVE")


@contextmanager
def scratch_file(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[BinaryIO]:
    """Yield a file to write to and read from, beside `path`. Raises `StorageError`."""
    with scratch_folder(path, what_now=what_now) as folder, (folder / "scratch").open("w+b") as file:
        yield file


@contextmanager
def scratch_database(path: Path, *, what_now: str = WHAT_NOW) -> Iterator[sqlite3.Connection]:
    """Yield an empty SQLite database beside `path`, without a journal. Raises `StorageError`."""
    try:
        with (
            scratch_folder(path, what_now=what_now) as folder,
            closing(sqlite3.connect(folder / "scratch.sqlite")) as database,
        ):
            for pragma in _PRAGMAS:
                database.execute(f"PRAGMA {pragma}")
            yield database
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path} cannot be written: {error}; nothing was changed. {what_now}") from error
