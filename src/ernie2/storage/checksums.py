"""Checksums of shards and of model folders.

A shard file that matched its checksum is not read again while its path, size and times are unchanged. Results are
cached in the user's cache directory, not next to the files: shards may be read-only or shared, and a copy is not
verified yet.

Users may edit a model folder: the config, the card, the tokeniser. A difference there is logged as a warning with the
file names, and never raised.
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
"""A file changed within this many seconds is compared again next time: a later write might not change its times."""
CHECKSUMS = "ernie2_checksums.json"
_WEIGHTS = ".safetensors"
_reported: set[Path] = set()


def first_mismatch(folder: Path, expected: Mapping[str, str]) -> str | None:
    """Return the first file of `folder` that differs from its checksum, or None. Raises `OSError`."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    cached = cache / "ernie2" / "verified" / f"{key}.json"
    known: dict[str, Any] = {}
    with suppress(OSError, DamagedFile):
        known = read_checked_json(cached)
    verified = {}
    for name, value in expected.items():
        status = (folder / name).stat()
        state = [value, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        if known.get(name) != state and checksum(folder / name) != value:
            return name
        if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS:
            verified[name] = state
    if verified and verified != known:
        with suppress(StorageError, OSError):  # without a cache the files are compared again
            write_checked_json(cached, verified)
    return None


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files in a staged `folder` to its file `CHECKSUMS`. Raises `StorageError`."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != CHECKSUMS)
    write_checked_json(folder / CHECKSUMS, {"files": {file.name: checksum(file) for file in files}})


def is_complete(folder: Path) -> bool:
    """Return whether every file listed in `CHECKSUMS` exists in `folder`, changed or not."""
    try:
        return all((folder / name).is_file() for name in read_checked_json(folder / CHECKSUMS)["files"])
    except (OSError, DamagedFile):
        return False


def warn_about_changes(folder: Path) -> None:
    """Log, once per process, which files of `folder` changed since they were written; a warning for weights.

    Folders without `CHECKSUMS`, written by other tools, are not checked.
    """
    if folder.resolve() in _reported:
        return
    _reported.add(folder.resolve())
    try:
        expected = read_checked_json(folder / CHECKSUMS)["files"]
    except FileNotFoundError:
        return
    except DamagedFile as error:
        log_warning(f"warning: {error} The weights next to it were not checked.")
        return
    changed = [name for name, value in expected.items() if not _matches(folder / name, value)]
    weights = [name for name in changed if name.endswith(_WEIGHTS)]
    if weights:
        log_warning(
            f"warning: {', '.join(weights)} in {folder} changed after ernie2 wrote it: the model may be damaged and "
            "its answers wrong. Write it again, or restore a copy."
        )
    if others := [name for name in changed if name not in weights]:
        log_warning(f"note: {', '.join(others)} in {folder} changed after ernie2 wrote it; using the current version.")


def _matches(file: Path, expected: str) -> bool:
    try:
        return checksum(file) == expected
    except OSError:
        return False
