"""Append-only files: JSON lines, how far they were written and whether that is still there; logs and counters."""

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
from ernie2.storage.atomic import WHAT_NOW, storage_errors
from ernie2.storage.json_files import parse_json


def append_line(path: Path, values: Mapping[str, Any], *, durable: bool = True, what_now: str = WHAT_NOW) -> None:
    """Append `values` as one line of JSON; if `durable`, it is on the disk before this returns.

    A line that a kill left unfinished is ended first. Missing parent folders are made. Where the disk refuses, the file
    stays as it was. Raises `StorageError`, ending in `what_now`.
    """
    line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
    with storage_errors(path, what_now=what_now):
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
    """Append a few bytes in one write: those of several processes do not mix. Raises `OSError`."""
    with path.open("ab", buffering=0) as file:
        file.write(content)


@contextmanager
def open_log(path: Path) -> Iterator[TextIO]:
    """Yield a text file to append to, written line by line; missing parent folders are made. Raises `StorageError`."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a", encoding="utf-8", buffering=1)
    with file:
        yield file


def check_appendable(path: Path, *, what_now: str = WHAT_NOW) -> None:
    """Raise `StorageError`, ending in `what_now`, where nothing can be appended to `path`; leave no new file."""
    with storage_errors(path, what_now=what_now):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            new = file.tell() == 0
        if new:
            path.unlink()


def shorten(path: Path, length: int) -> None:
    """Cut off what a file holds after `length` bytes; a missing file stays missing. Raises `StorageError`."""
    if path.exists() and path.stat().st_size > length:
        with storage_errors(path):
            os.truncate(path, length)


def extent_of(path: Path) -> dict[str, Any]:
    """Return `bytes`, `lines` and `sha256` of a file, all of it on the disk: a note of them outlives a power cut.

    A missing file has no lines. Raises `OSError`.
    """
    content = b""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            content = file.read()
    return _extent(content)


def check_extent(path: Path, extent: Mapping[str, Any]) -> None:
    """Raise `DamagedFile`, naming the line where one can be named, unless `path` begins with what `extent` notes.

    Lines after it are not looked at.
    """
    if not extent["bytes"]:
        return
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DamagedFile(path, f"it is missing, and had {extent['lines']:,} lines") from None
    except OSError as error:
        raise DamagedFile(path, error.strerror or str(error)) from error
    if len(content) < extent["bytes"]:
        lines = content.count(b"\n")
        raise DamagedFile(path, f"it ends after line {lines:,} of {extent['lines']:,}")
    prefix = content[: extent["bytes"]]
    if _extent(prefix) == extent:
        return
    parse_lines(path, prefix)
    raise DamagedFile(path, f"something in its lines 1 to {extent['lines']:,} was changed after it was written")


def parse_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects in the lines of `content`, which is that of `path`; a last line without its end is cut.

    Raises `DamagedFile` naming the first line that is none.
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
    """Write to an unbuffered file, on which a full disk may first take a part."""
    while content:
        content = content[file.write(content) :]


def _extent(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "lines": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}
