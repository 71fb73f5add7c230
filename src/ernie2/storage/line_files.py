"""Append-only files: JSON lines with a record of their extent, and logs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, TextIO

from ernie2.errors import DamagedFile
from ernie2.storage.atomic import ADVICE, storage_errors
from ernie2.storage.json_files import parse_json


def append_line(path: Path, values: Mapping[str, Any], *, durable: bool = True, advice: str = ADVICE) -> None:
    """Append `values` as one line of JSON; if `durable`, flush it to disk before returning.

    If a kill left the last line without a line feed, one is written first. Missing parent folders are created. If the
    write fails, the file is unchanged. Raises `StorageError`, ending in `advice`.
    """
    line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
    with storage_errors(path, advice=advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            try:
                _write_all(file, line)
                if durable:
                    os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise


def append_bytes(path: Path, content: bytes) -> None:
    """Append a few bytes in one write, so that those of several processes are not interleaved. Raises `OSError`."""
    with path.open("ab", buffering=0) as file:
        file.write(content)


@contextmanager
def open_log(path: Path) -> Iterator[TextIO]:
    """Open a line-buffered text file for appending; missing parent folders are created. Raises `StorageError`."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", buffering=1)
    with file:
        yield file


def check_appendable(path: Path, *, advice: str = ADVICE) -> None:
    """Raise `StorageError`, ending in `advice`, if `path` cannot be appended to; leave no new file."""
    with storage_errors(path, advice=advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            new = file.tell() == 0
        if new:
            path.unlink()


def truncate(path: Path, length: int) -> None:
    """Shorten a longer file to `length` bytes; do nothing if it is missing. Raises `StorageError`."""
    if path.exists() and path.stat().st_size > length:
        with storage_errors(path):
            os.truncate(path, length)


def file_extent(path: Path) -> dict[str, Any]:
    """Flush a file to disk and return its `bytes`, `lines` and `sha256`, so the result stays valid after a power cut.

    A missing file has no lines. Raises `OSError`.
    """
    content = b""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            content = file.read()
    return _extent(content)


def check_extent(path: Path, extent: Mapping[str, Any]) -> None:
    """Raise `DamagedFile`, with the line if known, unless `path` begins with the content described by `extent`.

    Later lines are not checked.
    """
    if not extent["bytes"]:
        return
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(path, f"it is missing; it had {extent['lines']:,} lines") from None
    except OSError as error:
        raise DamagedFile(path, error.strerror or str(error)) from error
    if len(content) < extent["bytes"]:
        lines = content.count(b"\n")
        raise DamagedFile(path, f"it ends after line {lines:,} of {extent['lines']:,}")
    prefix = content[: extent["bytes"]]
    if _extent(prefix) == extent:
        return
    parse_lines(path, prefix)
    raise DamagedFile(path, f"lines 1 to {extent['lines']:,} changed after they were written")


def parse_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of the lines of `content`, the content of `path`; an unfinished last line is ignored.

    Raises `DamagedFile` with the first line that is not a JSON object.
    """
    lines = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            values = parse_json(line)
        except ValueError as error:
            raise DamagedFile(path, f"line {number:,} is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise DamagedFile(path, f"line {number:,} is not a JSON object")
        lines.append(values)
    return lines


def _write_all(file: FileIO, content: bytes) -> None:
    """Write all bytes to an unbuffered file; one write may be partial."""
    while content:
        content = content[file.write(content) :]


def _extent(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "lines": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}
