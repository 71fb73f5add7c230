"""Files of object stores and other places that fsspec reaches, copied to the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ernie2.storage.atomic import WHAT_NOW, staged_file


def download(files: Any, source: str, target: Path, *, what_now: str = WHAT_NOW) -> None:
    """Copy `source` of the fsspec file system `files` to `target`, atomically.

    Raises `FileNotFoundError` where there is no such file, `StorageError` where it cannot be copied.
    """
    if not files.exists(source):
        raise FileNotFoundError(f"there is no {source}")
    with staged_file(target, what_now=what_now) as file:
        files.get_file(source, str(file))
