"""Find the files of a declared dataset: official folders, its own folder, or the Hub's parquet files."""

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
    """The files of one split, and the provenance implied by their names."""

    files: tuple[str, ...]
    provenance: Provenance


def find_files(dataset: Dataset, folder: str, *, include_root: bool = True) -> dict[str, SplitFiles]:
    """Return split → files for the splits in a folder of the dataset's name inside `folder`, or else in `folder`.

    If not `include_root`, only folders of the dataset's name are searched, for a folder of many datasets. Raises
    `DataError` if `folder` cannot be listed.
    """
    present = _list_folder(folder)
    inner = [name for name in dataset.folders if any(path.startswith(f"{name}/") for path in present)]
    prefixes = [f"{name}/" for name in inner] + ([""] if include_root else [])
    for prefix in prefixes:
        files = {path.removeprefix(prefix): target for path, target in present.items() if path.startswith(prefix)}
        splits = {split: match for split, declared in dataset.splits.items() if (match := _match(declared, files))}
        if splits:
            return splits
    return {}


def match_given_file(path: str, files: Files | None = None) -> SplitFiles:
    """Return the files of a path or glob given for a split, with the provenance implied by their names.

    It is official unless a name implies otherwise; the size is checked later. `files`: the declared names of the split.
    Raises `DataError`.
    """
    paths = tuple(list_files([path], TABLE_FORMATS))
    names = [file.replace("\\", "/").rpartition("/")[2] for file in paths]
    for patterns, provenance in ((("*_from_*",), "stand-in"), *reversed(files.fallbacks if files else ())):
        if any(_matches(name, [pattern.rpartition("/")[2] for pattern in patterns]) for name in names):
            return SplitFiles(paths, provenance)
    return SplitFiles(paths, "official")


def _match(files: Files, present: dict[str, str]) -> SplitFiles | None:
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
    """Return the folder part of a pattern, so that `*` does not match in other folders."""
    folders = [pattern.rpartition("/")[0] + "/" for pattern in patterns if "/" in pattern]
    return next((folder for folder in folders if path.startswith(folder)), "")


def _is_hub_file(path: str, split: str) -> bool:
    """Match the Hub's names: 'data/train-00000-of-00001.parquet', 'train-….parquet' or 'train/0000.parquet'."""
    inner = path.removeprefix("data/")
    return any(fnmatchcase(inner, p) for p in (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet"))


def _list_folder(folder: str) -> dict[str, str]:
    """Return path relative to `folder` → path to open, for files at most four folders deep."""
    try:
        system, inner = fsspec.core.url_to_fs(folder)
        if not system.isdir(inner):
            raise DataError(f"{folder} is not a folder; set --data to the folder of the datasets, or name files.")
        root = inner.rstrip("/") + "/"
        paths = sorted(system.find(inner, maxdepth=_DEPTH))
    except (OSError, ValueError, ImportError) as error:
        raise read_error(folder, error) from error
    remote = "://" in folder or "::" in folder
    return {path[len(root) :]: system.unstrip_protocol(path) if remote else path for path in paths}
