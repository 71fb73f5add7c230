"""Remove files and folders; failures raise an error, or log a warning if the content is no longer needed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from ernie2.console import log_warning
from ernie2.errors import StorageError

ADVICE = "Remove it yourself, then try again."
"""Default advice at the end of a `StorageError`."""

_UNNEEDED = "It is no longer needed: remove it yourself."


def remove(path: Path, *, advice: str = ADVICE) -> None:
    """Remove a file, a link, or a folder with its content; do nothing if it does not exist.

    Raises `StorageError`, ending in `advice`.
    """
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:  # another process is removing it too
        if path.exists():
            remove(path, advice=advice)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise StorageError(f"{path} cannot be removed: {reason}. {advice}") from error


def discard(path: Path) -> None:
    """Remove a path that is no longer needed; on failure log a warning."""
    try:
        remove(path, advice=_UNNEEDED)
    except StorageError as error:
        log_warning(f"warning: {error}")


def remove_empty(*paths: Path) -> None:
    """Remove the folders among `paths` that are empty, in this order."""
    for path in paths:
        with suppress(OSError):
            path.rmdir()


def discard_folder(folder: Path) -> None:
    """`discard` a folder after renaming it, so that a kill leaves a leftover of `storage.atomic`, not a partial
    folder."""
    hidden = folder.with_name(f".{folder.name}.deleted_.tmp")
    discard(hidden)
    try:
        folder.rename(hidden)
    except OSError as error:
        log_warning(f"warning: {folder} cannot be removed: {error.strerror or error}. {_UNNEEDED}")
    discard(hidden)
