"""Which files a declared set is read from: the official folders, one of its folders, or the Hub's parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import fsspec

from ernie2.datasets.declarations import Dataset, Files
from ernie2.datasets.examples import Standing
from ernie2.errors import DataError
from ernie2.storage.files import unreadable
from ernie2.storage.listing import list_files
from ernie2.storage.tables import TABLES

_PACKED = ("", ".gz", ".zst")
_DEPTH = 4


@dataclass(frozen=True)
class Found:
    """The files of one split, and what their names say they are."""

    files: tuple[str, ...]
    standing: Standing


def find_files(dataset: Dataset, folder: str, *, own_folder: bool = True) -> dict[str, Found]:
    """split -> its files, for the splits that lie in `folder` or, first, in a folder of the set's name inside it.

    `own_folder` False looks in folders of the set's name only, which is right where many sets lie side by side. Raises
    `DataError` when `folder` cannot be listed.
    """
    present = _listed(folder)
    inner = [name for name in dataset.folders if any(path.startswith(f"{name}/") for path in present)]
    prefixes = [f"{name}/" for name in inner] + ([""] if own_folder else [])
    for prefix in prefixes:
        here = {path.removeprefix(prefix): where for path, where in present.items() if path.startswith(prefix)}
        found = {split: one for split, files in dataset.splits.items() if (one := _split(files, here))}
        if found:
            return found
    return {}


def given_file(path: str, files: Files | None = None) -> Found:
    """What a user named as the file (or glob) of a split; official if neither its name nor, later, its size says
    otherwise. `files`: the declared names of that split. Raises `DataError`."""
    found = tuple(list_files([path], TABLES))
    names = [file.replace("\\", "/").rpartition("/")[2] for file in found]
    for patterns, standing in ((("*_from_*",), "stand-in"), *reversed(files.in_its_place if files else ())):
        if any(_is_called(name, [pattern.rpartition("/")[2] for pattern in patterns]) for name in names):
            return Found(found, standing)
    return Found(found, "official")


def _split(files: Files, present: dict[str, str]) -> Found | None:
    for name in files.official:
        for packed in _PACKED:
            if name + packed in present:
                return Found((present[name + packed],), "official")
    parquet = tuple(present[path] for path in sorted(present) if _of_the_hub(path, files.hub))
    if parquet:
        return Found(parquet, "official")
    for patterns, standing in files.in_its_place:
        matches = [
            path
            for path in sorted(present)
            if _is_called(path, patterns) and "/" not in path.removeprefix(_folder_of(patterns, path))
        ]
        if matches:
            return Found(tuple(present[path] for path in matches), standing)
    return None


def _is_called(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern + packed) for pattern in patterns for packed in _PACKED)


def _folder_of(patterns: tuple[str, ...], path: str) -> str:
    """The folder that a pattern names itself, so that `*` never reaches into other folders."""
    folders = [pattern.rpartition("/")[0] + "/" for pattern in patterns if "/" in pattern]
    return next((folder for folder in folders if path.startswith(folder)), "")


def _of_the_hub(path: str, split: str) -> bool:
    """'data/train-00000-of-00001.parquet', 'train-….parquet' and 'train/0000.parquet' are all the Hub's `train`."""
    inner = path.removeprefix("data/")
    return any(fnmatchcase(inner, p) for p in (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"))


def _listed(folder: str) -> dict[str, str]:
    """path relative to `folder` -> path to open, for the files at most four folders deep."""
    try:
        system, inner = fsspec.core.url_to_fs(folder)
        if not system.isdir(inner):
            raise DataError(f"{folder} is not a folder; give the folder that holds the data sets, or name files.")
        root = inner.rstrip("/") + "/"
        found = sorted(system.find(inner, maxdepth=_DEPTH))
    except (OSError, ValueError, ImportError) as error:
        raise unreadable(folder, error) from error
    remote = "://" in folder or "::" in folder
    return {path[len(root) :]: system.unstrip_protocol(path) if remote else path for path in found}
