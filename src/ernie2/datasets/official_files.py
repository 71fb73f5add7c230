"""Which files a declared set is read from: the official folders, one of its folders, or the Hub's parquet files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import fsspec

from ernie2.datasets.declarations import Dataset, Files
from ernie2.datasets.examples import Provenance
from ernie2.errors import DataError
from ernie2.storage.files import read_error
from ernie2.storage.listing import list_files
from ernie2.storage.tables import TABLE_FORMATS

_PACKED = ("", ".gz", ".zst")
_DEPTH = 4


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, and what their names say they are."""

    files: tuple[str, ...]
    provenance: Provenance


def find_files(dataset: Dataset, folder: str, *, include_root: bool = True) -> dict[str, SplitFiles]:
    """split -> its files, for the splits that lie in `folder` or, first, in a folder of the set's name inside it.

    `include_root` False looks in folders of the set's name only, for folders of many data sets. Raises
    `DataError` when `folder` cannot be listed.
    """
    present = _list_folder(folder)
    inner = [name for name in dataset.folders if any(path.startswith(f"{name}/") for path in present)]
    prefixes = [f"{name}/" for name in inner] + ([""] if include_root else [])
    for prefix in prefixes:
        here = {path.removeprefix(prefix): where for path, where in present.items() if path.startswith(prefix)}
        found = {split: one for split, files in dataset.splits.items() if (one := _split(files, here))}
        if found:
            return found
    return {}


def match_given_file(path: str, files: Files | None = None) -> SplitFiles:
    """What a user named as the file (or glob) of a split; official if neither its name nor, later, its size says
    otherwise. `files`: the declared names of that split. Raises `DataError`."""
    found = tuple(list_files([path], TABLE_FORMATS))
    names = [file.replace("\\", "/").rpartition("/")[2] for file in found]
    for patterns, provenance in ((("*_from_*",), "stand-in"), *reversed(files.fallbacks if files else ())):
        if any(_matches(name, [pattern.rpartition("/")[2] for pattern in patterns]) for name in names):
            return SplitFiles(found, provenance)
    return SplitFiles(found, "official")


def _split(files: Files, present: dict[str, str]) -> SplitFiles | None:
    for name in files.official:
        for packed in _PACKED:
            if name + packed in present:
                return SplitFiles((present[name + packed],), "official")
    parquet = tuple(present[path] for path in sorted(present) if _is_hub_file(path, files.hub))
    if parquet:
        return SplitFiles(parquet, "official")
    for patterns, provenance in files.fallbacks:
        matches = [
            path
            for path in sorted(present)
            if _matches(path, patterns) and "/" not in path.removeprefix(_pattern_folder(patterns, path))
        ]
        if matches:
            return SplitFiles(tuple(present[path] for path in matches), provenance)
    return None


def _matches(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern + packed) for pattern in patterns for packed in _PACKED)


def _pattern_folder(patterns: tuple[str, ...], path: str) -> str:
    """The folder that a pattern names itself, so that `*` never reaches into other folders."""
    folders = [pattern.rpartition("/")[0] + "/" for pattern in patterns if "/" in pattern]
    return next((folder for folder in folders if path.startswith(folder)), "")


def _is_hub_file(path: str, split: str) -> bool:
    """'data/train-00000-of-00001.parquet', 'train-….parquet' and 'train/0000.parquet' are all the Hub's `train`."""
    inner = path.removeprefix("data/")
    return any(fnmatchcase(inner, p) for p in (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"))


def _list_folder(folder: str) -> dict[str, str]:
    """path relative to `folder` -> path to open, for the files at most four folders deep."""
    try:
        system, inner = fsspec.core.url_to_fs(folder)
        if not system.isdir(inner):
            raise DataError(f"{folder} is not a folder; give the folder that holds the data sets, or name files.")
        root = inner.rstrip("/") + "/"
        found = sorted(system.find(inner, maxdepth=_DEPTH))
    except (OSError, ValueError, ImportError) as error:
        raise read_error(folder, error) from error
    remote = "://" in folder or "::" in folder
    return {path[len(root) :]: system.unstrip_protocol(path) if remote else path for path in found}
