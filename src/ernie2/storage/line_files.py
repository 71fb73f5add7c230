"""Append-only files of JSON lines: how far one was written, noted elsewhere, and checked when it is read back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ernie2.errors import DamagedFile
from ernie2.storage.json_files import parse_json


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


def _extent(content: bytes) -> dict[str, Any]:
    return {
        "bytes": len(content),
        "lines": content.count(b"\n"),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
