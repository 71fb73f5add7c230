"""How the pages of this room come to the disk: whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ernie2.errors import StorageError


def write_whole(path: Path, text: str, advice: str) -> None:
    """Writes `text` aside and renames it, so what was there before stays whole until then.

    Raises `StorageError`, which ends with `advice`: what to do now, and what is safe.
    """
    aside = path.with_name(f"{path.name}.tmp")
    try:
        aside.write_bytes(text.encode())
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror}. {advice}") from error
