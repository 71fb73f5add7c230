"""JSON files written by ernie2; the important ones contain their own checksum.

The last key of a checked file is the SHA-256 of all bytes before it:

    {
     "format": 2,
     "step": 1200,
     "checksum": "9f86d081…"
    }

A change of any bit is therefore detected before the content is used.
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
from ernie2.storage.atomic import ADVICE, write_bytes

Kind = TypeVar("Kind", dict[str, Any], list[Any])

_CHECKSUM = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n')
_KINDS = {dict: "object", list: "list"}


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Return the content of a JSON file, an object (`dict`) or a list.

    Raises `FileNotFoundError` for a missing file, `DamagedFile` for any other failure.
    """
    return _parse(path, _read_bytes(path), kind)


def json_with_checksum(values: Mapping[str, Any]) -> bytes:
    """Return a non-empty JSON object with its checksum as the last key, as `read_checked_json` reads it."""
    return add_checksum(json.dumps(values, indent=1, ensure_ascii=False))


def add_checksum(text: str) -> bytes:
    """Add a checksum as the last key to the text of a JSON object; its last line must be the closing brace."""
    head = text.rstrip("\n").encode("utf-8", "backslashreplace").removesuffix(b"\n}")
    return head + f',\n "checksum": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode()


def write_checked_json(path: Path, values: Mapping[str, Any], *, advice: str = ADVICE) -> None:
    """Write a JSON object atomically, with its checksum. Raises `StorageError`."""
    write_bytes(path, json_with_checksum(values), advice=advice)


def read_checked_json(path: Path) -> dict[str, Any]:
    """Return the object in a file that `write_checked_json` wrote, without its checksum.

    Raises `FileNotFoundError` for a missing file, `DamagedFile` for one that changed since.
    """
    content = _read_bytes(path)
    end = content.rfind(b',\n "checksum"')
    match = _CHECKSUM.fullmatch(content, end) if end >= 0 else None
    if match is None:
        raise DamagedFile(path, "it does not end in its checksum")
    if match[1].decode() != hashlib.sha256(content[:end]).hexdigest():
        raise DamagedFile(path, "its content does not match its checksum")
    values = _parse(path, content, dict)
    del values["checksum"]
    return values


def read_versioned_json(path: Path, number: int, other: Callable[[object], Ernie2Error]) -> dict[str, Any]:
    """Read like `read_checked_json`, and check that the key `format` is `number`.

    Raises `other(format)` for another format, even if the checksum is missing or wrong: older versions wrote none.
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
    """Parse UTF-8 JSON. Raises `ValueError` for invalid or too deeply nested text."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_format(values: Mapping[str, Any], number: int, other: Callable[[object], Ernie2Error]) -> None:
    if (actual := values.get("format", number)) != number:
        raise other(actual)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedFile(path, error.strerror or str(error)) from error


def _parse(path: Path, content: bytes, kind: type[Kind]) -> Kind:
    try:
        values = parse_json(content)
    except ValueError as error:
        raise DamagedFile(path, str(error)) from error
    if not isinstance(values, kind):
        raise DamagedFile(path, f"it is not a JSON {_KINDS[kind]}")
    return values
