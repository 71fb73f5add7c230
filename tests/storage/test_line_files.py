"""A line is appended whole, after what a kill left of the one before."""

from __future__ import annotations

import errno
import json
from io import FileIO
from pathlib import Path

import pytest

from ernie2.errors import StorageError
from ernie2.storage.line_files import append_line, check_appendable, truncate


def test_lines_are_appended_and_an_unfinished_one_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lines.jsonl"
    append_line(file, {"a": "é"})
    with file.open("a") as handle:
        handle.write('{"a": 2')
    append_line(file, {"a": 3})
    append_line(file, {"a": 4})
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [lines[1], *map(json.loads, [lines[0], *lines[2:]])] == ['{"a": 2', {"a": "é"}, {"a": 3}, {"a": 4}]


def test_a_failed_write_raises_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Give another file"):
        append_line(tmp_path, {}, advice="Give another file.")


def test_a_partial_line_on_a_full_disk_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines.jsonl"
    append_line(file, {"a": 1})

    def full(handle: FileIO, content: bytes) -> None:
        handle.write(content[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr("ernie2.storage.line_files._write_all", full)
        with pytest.raises(StorageError, match=r"No space left.*nothing was changed"):
            append_line(file, {"a": 2}, durable=False)
    append_line(file, {"a": 2})
    assert list(map(json.loads, file.read_text(encoding="utf-8").splitlines())) == [{"a": 1}, {"a": 2}]


def test_truncate_and_check_appendable_create_no_file(tmp_path: Path) -> None:
    check_appendable(tmp_path / "new" / "lines.jsonl")
    assert not list((tmp_path / "new").iterdir())
    with pytest.raises(StorageError, match=r"Name another file\."):
        check_appendable(tmp_path, advice="Name another file.")
    truncate(tmp_path / "absent", 3)
    (tmp_path / "log").write_bytes(b"abcdef")
    truncate(tmp_path / "log", 3)
    assert (tmp_path / "log").read_bytes() == b"abc"
