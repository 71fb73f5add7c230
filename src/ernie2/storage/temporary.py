"""Temporary files and databases next to an output, for data larger than memory; removed at the end."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ernie2.errors import StorageError
from ernie2.storage.atomic import ADVICE, temporary_folder

_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "locking_mode=EXCLUSIVE")


@contextmanager
def temporary_file(path: Path, *, advice: str = ADVICE) -> Iterator[BinaryIO]:
    """Yield a temporary file next to `path`, open for reading and writing. Raises `StorageError`."""
    with temporary_folder(path, advice=advice) as folder, (folder / "file").open("w+b") as file:
        yield file


@contextmanager
def temporary_database(path: Path, *, advice: str = ADVICE) -> Iterator[sqlite3.Connection]:
    """Yield an empty temporary SQLite database next to `path`, without a journal. Raises `StorageError`."""
    try:
        with (
            temporary_folder(path, advice=advice) as folder,
            closing(sqlite3.connect(folder / "database.sqlite")) as database,
        ):
            for pragma in _PRAGMAS:
                database.execute(f"PRAGMA {pragma}")
            yield database
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path} cannot be written: {error}; nothing was changed. {advice}") from error
