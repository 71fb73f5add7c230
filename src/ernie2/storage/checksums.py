"""Checksums of files: shards compared once, and model folders that leave our hands.

A file of shards that fitted is not read again while its path, size and times stay the same. What fitted is remembered
in the user's cache, not beside the files: shards may be read-only or shared, and a copy of them was not verified.

People edit model folders, and may: a config, a card, a tokeniser. So a difference there is a line on standard error,
with the names of the files, and never an error.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ernie2.console import log_warning
from ernie2.errors import DamagedFile, StorageError
from ernie2.storage.atomic import checksum
from ernie2.storage.json_files import read_checked_json, write_checked_json

SETTLED_SECONDS = 2.0
"""A file changed so recently is compared again next time: a change right after might leave its times the same."""
CHECKSUMS = "ernie2_checksums.json"
_WEIGHTS = ".safetensors"
_reported: set[Path] = set()


def first_difference(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Return the first file of `folder` that does not fit its checksum, None where all do. Raises `OSError`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    note = cache / "ernie2" / "verified" / f"{key}.json"
    known: dict[str, Any] = {}
    with suppress(OSError, DamagedFile):
        known = read_checked_json(note)
    fitted = {}
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


def note_checksums(folder: Path) -> None:
    """Write the checksums of all files in `folder`, which is being staged, into `CHECKSUMS`. Raises `StorageError`."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != CHECKSUMS)
    write_checked_json(folder / CHECKSUMS, {"files": {file.name: checksum(file) for file in files}})


def is_complete(folder: Path) -> bool:
    """Whether every file that was written into `folder` is still there, changed or not."""
    try:
        return all((folder / name).is_file() for name in read_checked_json(folder / CHECKSUMS)["files"])
    except (OSError, DamagedFile):
        return False


def report_changes(folder: Path) -> None:
    """Say, once per process, which files of `folder` are not as they were written; a warning where weights are not.

    Nothing is said of folders without `CHECKSUMS`, which others wrote.
    """
    if folder.resolve() in _reported:
        return
    _reported.add(folder.resolve())
    try:
        expected = read_checked_json(folder / CHECKSUMS)["files"]
    except FileNotFoundError:
        return
    except DamagedFile as error:
        log_warning(f"warning: {error} The weights beside it were not checked.")
        return
    changed = [name for name, value in expected.items() if not _fits(folder / name, value)]
    weights = [name for name in changed if name.endswith(_WEIGHTS)]
    if weights:
        log_warning(
            f"warning: {', '.join(weights)} in {folder} changed after ernie2 wrote it: the model may be damaged, and "
            "its answers wrong. Write it again, or put back a copy."
        )
    if others := [name for name in changed if name not in weights]:
        log_warning(f"note: {', '.join(others)} in {folder} changed after ernie2 wrote it; used as it is now.")


def _fits(file: Path, expected: str) -> bool:
    try:
        return checksum(file) == expected
    except OSError:
        return False
