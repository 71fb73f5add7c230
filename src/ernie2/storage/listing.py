"""List input files: resolve paths, globs and URLs in a reproducible order, and get their formats by extension."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ernie2.errors import DataError, did_you_mean, did_you_mean_file
from ernie2.storage.files import file_name, read_error

PACKAGED = "package:"
"""Prefix of the corpora included in ernie2."""
MAX_FOLDERS = 5_000
"""Number of local folders that one glob may search."""

_WILDCARDS = "*?["


def list_files(paths: Sequence[str], formats: Sequence[str]) -> list[str]:
    """Return the files of `paths` in their order, without duplicates; the matches of a glob are sorted.

    A path is a file, a glob, an fsspec URL of either, or `package:NAME`. Raises `DataError` for a missing file, a
    directory, a glob without matches, and an extension that is not in `formats`.
    """
    files = [file for path in paths for file in _files_of(path)]
    for file in files:
        file_format(file, formats)
    return list(dict.fromkeys(files))


def file_format(file: str, formats: Sequence[str]) -> str:
    """Return the extension in lower case, including the compression: 'a/b.JSONL.gz' -> '.jsonl.gz'."""
    name = file_name(file).lower()
    matches = [extension for extension in formats if name.endswith(extension)]
    if not matches:
        suffixes = PurePosixPath(name).suffixes
        extension = "".join(suffixes[-2:] if name.endswith((".gz", ".zst")) else suffixes[-1:])
        kind = f"{extension!r} files" if extension else "files without an extension"
        raise DataError(
            f"{file}: {kind} are not supported here.{did_you_mean(extension, formats)} Known: {', '.join(formats)}."
        )
    return matches[0]


def file_stems(files: Sequence[str], formats: Sequence[str]) -> dict[str, str]:
    """Map each file to its name without extension, with as many parent folders as are needed to make it unique.

    ['x/a.txt', 'x/b.txt'] -> 'a', 'b' and ['x/a.txt', 'y/a.txt'] -> 'x/a', 'y/a'.
    """
    parts = {
        file: (*PurePosixPath(file).parts[:-1], file_name(file)[: -len(file_format(file, formats))]) for file in files
    }
    for depth in range(1, max(map(len, parts.values()), default=1) + 1):
        stems = {file: "/".join(folders[-depth:]) for file, folders in parts.items()}
        if len(set(stems.values())) == len(stems):
            return stems
    return {file: file for file in files}  # such as a.txt and a.jsonl, which differ in the extension only


def _files_of(path: str) -> list[str]:
    if path.startswith(PACKAGED):
        return [_bundled(path.removeprefix(PACKAGED))]
    try:
        system, inner = fsspec.core.url_to_fs(path)
        if system.isdir(inner):
            raise DataError(f"{path} is a directory; give files, or a glob such as {path.rstrip('/')}/*.jsonl.")
        if system.exists(inner):
            return [path]
        if any(mark in path for mark in _WILDCARDS):
            remote = "://" in path or "::" in path
            if isinstance(system, LocalFileSystem):
                _check_breadth(path, inner)
            matches = sorted(match for match in system.glob(inner) if not system.isdir(match))
            if not matches:
                raise DataError(f"no file matches {path!r}; check the folder and the extension.")
            return [system.unstrip_protocol(match) if remote else match for match in matches]
        raise DataError(f"no such file: {path!r}.{_similar_file(system, inner)} Check the path.")
    except re.error as error:
        raise DataError(f"{path!r} is not a glob ({error}). Write a literal [ as [[].") from error
    except (OSError, ValueError, ImportError) as error:
        raise read_error(path, error) from error


def _check_breadth(path: str, inner: str) -> None:
    """Raise `DataError` if the glob `inner` would search more than `MAX_FOLDERS` local folders."""
    parts = inner.split("/")
    first = next(number for number, part in enumerate(parts) if any(mark in part for mark in _WILDCARDS))
    root = "/".join(parts[:first]) or "/"
    deepest = None if "**" in inner else len(parts) - first - 1
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > MAX_FOLDERS:
            raise DataError(
                f"{path!r} searches more than {MAX_FOLDERS:,} folders below {root}; start it with the folder that "
                "contains the files."
            )
        if depth == deepest:
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            waiting += [(entry.path, depth + 1) for entry in entries if entry.is_dir()]


def _similar_file(system: Any, inner: str) -> str:
    """Return a hint with the most similar file name in the same folder, or an empty string."""
    folder, _, name = inner.rpartition("/")
    try:
        return did_you_mean_file(name, [entry.rpartition("/")[2] for entry in system.ls(folder, detail=False)])
    except (OSError, ValueError, NotImplementedError):
        return ""


def _bundled(name: str) -> str:
    folder = bundled_data_folder()
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    shipped = sorted(name for name in names if name.lower().removesuffix(".gz").endswith((".txt", ".jsonl")))
    if name not in shipped:
        raise DataError(
            f"ernie2 does not include a corpus {name!r}.{did_you_mean(name, shipped)} "
            f"Included: {', '.join(shipped) or 'none'}."
        )
    return str(folder / name)


def bundled_data_folder() -> Traversable:
    """Return the folder of the corpora included in the package."""
    return resources.files("ernie2") / "data"
