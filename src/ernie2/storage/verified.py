"""Checksums compared once: a file that fitted is not read again while its path, size and times stay the same.

What fitted is remembered in the user's cache, not beside the files: shards may be read-only or shared, and a copy of
them was not verified.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ernie2.errors import DamagedFile, StorageError
from ernie2.storage.atomic import checksum
from ernie2.storage.json_files import read_checked_json, write_checked_json

SETTLED_SECONDS = 2.0
"""A file changed so recently is compared again next time: a change right after might leave its times the same."""


def first_difference(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Return the first file of `folder` that does not fit its checksum, None where all do. Raises `OSError`."""
    note = _note_of(folder)
    known, fitted = _read(note), {}
    for name, value in expected.items():
        status = (folder / name).stat()
        state = [value, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known.get(name) != state and checksum(folder / name) != value:
            return name
        if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
            fitted[name] = state
    if fitted and fitted != known:
        with suppress(StorageError, OSError):  # without a cache the files are compared again
            write_checked_json(note, fitted)
    return None


def _note_of(folder: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "ernie2" / "verified" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"


def _read(note: Path) -> Mapping[str, object]:
    try:
        return read_checked_json(note)
    except (OSError, DamagedFile):
        return {}
