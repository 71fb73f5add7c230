"""A line is appended whole, after what a kill left of the one before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ernie2.errors import StorageError
from ernie2.storage.line_files import append_line


def test_lines_are_appended_and_an_unfinished_one_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "new" / "lines.jsonl"
    append_line(file, {"a": "é"})
    with file.open("a") as handle:
        handle.write('{"a": 2')
    append_line(file, {"a": 3})
    append_line(file, {"a": 4})
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [lines[1], *map(json.loads, [lines[0], *lines[2:]])] == ['{"a": 2', {"a": "é"}, {"a": 3}, {"a": 4}]


def test_a_refusing_disk_is_told_with_what_to_do_now(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Give another file"):
        append_line(tmp_path, {}, what_now="Give another file.")
