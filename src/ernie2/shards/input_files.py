"""The input files of a recipe and their states: how changed content is distinguished from a new modification time.

The state of a local file is its SHA-256. Hashing a corpus at every start would be too slow, so the hashes are stored
beside the shards with the size and time of the file. They are valid while both are unchanged. The state of a remote
file is its size and its ETag or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ernie2.config.settings import Recipe
from ernie2.console import log_info
from ernie2.corpora.documents import corpus_files
from ernie2.errors import DamagedFile, DataError, StorageError
from ernie2.storage.atomic import checksum
from ernie2.storage.files import read_error
from ernie2.storage.json_files import read_checked_json, write_checked_json

HASHES = "input-files.json"
"""File of a shards folder with the hashes of input files, and their sizes and times when hashed."""
_LARGE_BYTES = 1 << 30
_MAX_NAMED = 3


@dataclass(frozen=True)
class InputFiles:
    """The input files of a recipe; `states`: path → state."""

    corpora: Mapping[str, list[str]]
    gazetteer: str | None
    states: Mapping[str, str]
    _hashes: Mapping[str, list[Any]]

    def save_hashes(self, folder: Path) -> None:
        """Write the hashes into a shards folder, if they are new and the folder is writable."""
        if self._hashes and self._hashes != _saved_hashes(folder):
            with suppress(StorageError):  # the next start hashes again
                write_checked_json(folder / HASHES, {"files": self._hashes})


def read_input_files(recipe: Recipe, folder: Path) -> InputFiles:
    """Return the input files of a recipe and their states.

    A local file is hashed unless the shards folder `folder` has its hash for this size and time. Raises `DataError` if
    a file cannot be read.
    """
    known, hashes, states, stale, paths = _saved_hashes(folder), {}, {}, {}, {}
    corpora = {name: corpus_files(corpus) for name, corpus in recipe.corpora.items()}
    gazetteer = recipe.knowledge.gazetteer
    named = [file for files in corpora.values() for file in files] + ([gazetteer] if gazetteer else [])
    for file in dict.fromkeys(named):
        path, size, changed, local = _file_facts(file)
        paths[file] = path
        if not local:
            states[path] = f"{size} {changed}"
        elif known.get(path, [])[:2] == [size, changed]:
            hashes[path] = known[path]
        else:
            stale[path] = [size, changed]
    if sum(size for size, _ in stale.values()) > _LARGE_BYTES:
        log_info("Hashing the input files, once, to notice changes later")
    for path, facts in stale.items():
        try:
            hashes[path] = [*facts, checksum(Path(path))]
        except OSError as error:
            raise read_error(path, error) from error
    states |= {path: sha for path, (_, _, sha) in hashes.items()}
    read = {name: [paths[file] for file in files] for name, files in corpora.items()}
    return InputFiles(read, gazetteer and paths[gazetteer], states, hashes)


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the files that differ between two states: 'words.txt changed, names.txt is new'."""
    words = []
    for path in {**now, **before}:
        if before.get(path) != now.get(path):
            change = "is new" if path not in before else "is no longer read" if path not in now else "changed"
            words.append(f"{PurePosixPath(path).name} {change}")
    more = len(words) - _MAX_NAMED
    return ", ".join(words[:_MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _saved_hashes(folder: Path) -> dict[str, list[Any]]:
    try:
        files = read_checked_json(folder / HASHES)["files"]
    except (OSError, DamagedFile, KeyError):
        return {}
    return dict(files) if isinstance(files, dict) else {}


def _file_facts(file: str) -> tuple[str, int | None, Any, bool]:
    """Return path, size, time or ETag of a file, and whether it is local."""
    system, inner = fsspec.core.url_to_fs(file)
    try:
        info = system.info(inner)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from error
    changed = next((info[name] for name in ("mtime", "ETag", "etag", "LastModified", "updated") if name in info), None)
    return str(inner), info.get("size"), changed, isinstance(system, LocalFileSystem)
