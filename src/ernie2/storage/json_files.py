"""JSON files of our own: read with one kind of error, and where they matter, written with a checksum of themselves.

A checked file ends in a line that holds the SHA-256 of every byte before it:

    {
     "format": 2,
     "step": 1200,
     "checksum": "9f86d081…"
    }

So a change of any bit is noticed before anything in it is believed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ernie2.errors import DamagedFile, Ernie2Error
from ernie2.storage.atomic import WHAT_NOW, write_bytes

Kind = TypeVar("Kind", dict[str, Any], list[Any])

_CHECKSUM = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n')
_KINDS = {dict: "object", list: "list"}


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Return what a JSON file holds, an object (`dict`) or a list.

    Raises `FileNotFoundError` where there is none, `DamagedFile` for everything else that keeps it from being read.
    """
    return _parsed(path, _content(path), kind)


def checked_json(values: Mapping[str, Any]) -> bytes:
    """Return a JSON object of at least one key with its checksum as the last, as `read_checked_json` takes it."""
    return with_checksum(json.dumps(values, indent=1, ensure_ascii=False))


def with_checksum(text: str) -> bytes:
    """Return the text of a JSON object, whose last line is its closing brace, with its checksum as the last key."""
    head = text.rstrip("\n").encode("utf-8", "backslashreplace").removesuffix(b"\n}")
    return head + f',\n "checksum": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def write_checked_json(path: Path, values: Mapping[str, Any], *, what_now: str = WHAT_NOW) -> None:
    """Write a JSON object atomically, with its checksum. Raises `StorageError`."""
    write_bytes(path, checked_json(values), what_now=what_now)


def read_checked_json(path: Path) -> dict[str, Any]:
    """Return the object in a file that `write_checked_json` wrote, without its checksum.

    Raises `FileNotFoundError` where there is none, `DamagedFile` where it is not as it was written.
    """
    content = _content(path)
    end = content.rfind(b',\n "checksum"')
    match = _CHECKSUM.fullmatch(content, end) if end >= 0 else None
    if match is None:
        raise DamagedFile(path, "it does not end in its checksum")
    if match[1].decode() != hashlib.sha256(content[:end]).hexdigest():
        raise DamagedFile(path, "it is not as it was written, by its checksum")
    values = _parsed(path, content, dict)
    del values["checksum"]
    return values


def read_formatted_json(path: Path, number: int, other: Callable[[object], Ernie2Error]) -> dict[str, Any]:
    """Return what `read_checked_json` does of a file whose key `format` is `number`.

    Raises as that does, and `other(format)` for another format, also where the checksum is missing or wrong: older
    versions wrote none.
    """
    try:
        values = read_checked_json(path)
    except DamagedFile:
        with suppress(DamagedFile, OSError):
            _check_format(read_json(path, dict), number, other)
        raise
    _check_format(values, number, other)
    return values


def parse_json(content: bytes) -> Any:
    """Return what a JSON text means. Raises `ValueError` for all that is none, however deeply it is nested."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_format(values: Mapping[str, Any], number: int, other: Callable[[object], Ernie2Error]) -> None:
    if (found := values.get("format", number)) != number:
        raise other(found)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(path, error.strerror or str(error)) from error


def _parsed(path: Path, content: bytes, kind: type[Kind]) -> Kind:
    try:
        values = parse_json(content)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from error
    if not isinstance(values, kind):
        raise DamagedFile(path, f"it is not a JSON {_KINDS[kind]}")
    return values
