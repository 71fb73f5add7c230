"""List input files: paths, globs and URLs → the files meant, in one order everywhere, and their formats by name."""

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
from ernie2.storage.files import file_name, unreadable

PACKAGED = "package:"
"""Prefix of a corpus that comes with ernie2."""
MOST_FOLDERS = 5_000
"""Folders of this machine that one glob may look into."""

_WILDCARDS = "*?["


def list_files(paths: Sequence[str], formats: Sequence[str]) -> list[str]:
    """The files meant by `paths`: in the order of `paths`, the matches of a glob sorted, none twice.

    Every path is a file, a glob, any fsspec URL of either, or `package:NAME`. Raises `DataError` for a path where
    nothing is, a directory, a glob that matches nothing, and an extension that is not one of `formats`.
    """
    files = [file for path in paths for file in _files_of(path)]
    for file in files:
        file_format(file, formats)
    return list(dict.fromkeys(files))


def file_format(file: str, formats: Sequence[str]) -> str:
    """The extension of `file`, lower-cased and with its compression: 'a/b.JSONL.gz' -> '.jsonl.gz'."""
    name = file_name(file).lower()
    found = [extension for extension in formats if name.endswith(extension)]
    if not found:
        suffixes = PurePosixPath(name).suffixes
        extension = "".join(suffixes[-2:] if name.endswith((".gz", ".zst")) else suffixes[-1:])
        kind = f"{extension!r} files" if extension else "files without an extension"
        raise DataError(
            f"{file}: {kind} are not read here.{did_you_mean(extension, formats)} Known: {', '.join(formats)}."
        )
    return found[0]


def file_stems(files: Sequence[str], formats: Sequence[str]) -> dict[str, str]:
    """file -> its name without extension, and with as much of its folders as tells it from the others of that name.

    ['x/a.txt', 'x/b.txt'] -> 'a', 'b' and ['x/a.txt', 'y/a.txt'] -> 'x/a', 'y/a'.
    """
    parts = {
        file: (*PurePosixPath(file).parts[:-1], file_name(file)[: -len(file_format(file, formats))]) for file in files
    }
    for depth in range(1, max(map(len, parts.values()), default=1) + 1):
        stems = {file: "/".join(folders[-depth:]) for file, folders in parts.items()}
        if len(set(stems.values())) == len(stems):
            return stems
    return {file: file for file in files}  # such as a.txt beside a.jsonl: only the whole name tells them apart


def _files_of(path: str) -> list[str]:
    if path.startswith(PACKAGED):
        return [_packaged(path.removeprefix(PACKAGED))]
    try:
        system, inner = fsspec.core.url_to_fs(path)
        if system.isdir(inner):
            raise DataError(f"{path} is a directory; name files, or a glob such as {path.rstrip('/')}/*.jsonl.")
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
        raise DataError(f"there is no file {path!r}.{_neighbour(system, inner)} Check the path.")
    except re.error as error:
        raise DataError(f"{path!r} is not a glob ({error}). Write a [ that belongs to a name as [[].") from error
    except (OSError, ValueError, ImportError) as error:
        raise unreadable(path, error) from error


def _check_breadth(path: str, inner: str) -> None:
    """Raise `DataError` where the glob `inner` looks into more than `MOST_FOLDERS` folders of this machine."""
    parts = inner.split("/")
    first = next(number for number, part in enumerate(parts) if any(mark in part for mark in _WILDCARDS))
    root = "/".join(parts[:first]) or "/"
    deepest = None if "**" in inner else len(parts) - first - 1
    waiting, seen = [(root, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > MOST_FOLDERS:
            raise DataError(
                f"{path!r} looks into more than {MOST_FOLDERS:,} folders below {root}; begin it with the folder that "
                "holds the files."
            )
        if depth == deepest:
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            waiting += [(entry.path, depth + 1) for entry in entries if entry.is_dir()]


def _neighbour(system: Any, inner: str) -> str:
    """A hint at the file of the nearest name in the same folder."""
    folder, _, name = inner.rpartition("/")
    try:
        return did_you_mean_file(name, [entry.rpartition("/")[2] for entry in system.ls(folder, detail=False)])
    except (OSError, ValueError, NotImplementedError):
        return ""


def _packaged(name: str) -> str:
    folder = packaged_folder()
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    shipped = sorted(name for name in names if name.lower().removesuffix(".gz").endswith((".txt", ".jsonl")))
    if name not in shipped:
        raise DataError(
            f"no corpus {name!r} comes with ernie2.{did_you_mean(name, shipped)} "
            f"Shipped: {', '.join(shipped) or 'none'}."
        )
    return str(folder / name)


def packaged_folder() -> Traversable:
    """Where the corpora lie that come with the package."""
    return resources.files("ernie2") / "data"
