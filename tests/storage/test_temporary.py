"""Temporary files and databases leave nothing, and a full disk is named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ernie2.errors import StorageError
from ernie2.storage.temporary import temporary_database, temporary_file


def test_temporary_files_and_databases_are_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_file(tmp_path / "out") as file, temporary_database(tmp_path / "out") as database:
        file.write(b"line")
        file.seek(0)
        assert file.read() == b"line"
        database.execute("CREATE TABLE known (name TEXT)")
        database.execute("INSERT INTO known VALUES ('a')")
        assert database.execute("SELECT name FROM known").fetchall() == [("a",)]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_a_database_is_a_storage_error(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"out cannot be written: database or disk is full.*Free space"),
        temporary_database(tmp_path / "out"),
    ):
        raise sqlite3.OperationalError("database or disk is full")
    assert not list(tmp_path.iterdir())
