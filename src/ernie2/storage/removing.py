"""Removing files and folders: where the disk refuses, an error names the path, or a warning where nothing needs it."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ernie2.console import log_warning
from ernie2.errors import StorageError

WHAT_NOW = "Remove it yourself, then try again."
"""Advice at the end of a `StorageError`, unless the caller knows better."""

_UNNEEDED = "Nothing needs it any more: remove it yourself."


def remove(path: Path, *, what_now: str = WHAT_NOW) -> None:
    """Remove a file, a link or a folder with all it holds; do nothing where there is none.

    Raises `StorageError`, ending in `what_now`, where the disk refuses.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # another process removes it too
        if path.exists():
            remove(path, what_now=what_now)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StorageError(f"{path} cannot be removed: {reason}. {what_now}") from error


def discard(path: Path) -> None:
    """Remove what nothing needs any more; where the disk refuses, say so in a line on standard error and go on."""
    try:
        remove(path, what_now=_UNNEEDED)
    except StorageError as error:
        log_warning(f"warning: {error}")


def remove_empty(*paths: Path) -> None:
    """Remove the folders among `paths` that are empty, in this order."""
    for path in paths:
        with suppress(OSError):
            path.rmdir()


def discard_folder(folder: Path) -> None:
    """`discard` a folder in one step: a kill leaves a leftover of `storage.atomic`, never half of it under its name."""
    hidden = folder.with_name(f".{folder.name}.deleted_.tmp")
    discard(hidden)
    try:
        folder.rename(hidden)
    except OSError as error:
        log_warning(f"warning: {folder} cannot be removed: {error.strerror or error}. {_UNNEEDED}")
    discard(hidden)
