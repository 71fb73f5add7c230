"""JSON beside weights, written by anybody: read with one error for whatever may be wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ernie2.errors import CheckpointError
from ernie2.model.formats.sniffing import lfs_pointer


def read_json(path: Path) -> Any:
    """The value in a file. Raises `CheckpointError` where it cannot be read, is not JSON or is nested too deeply."""
    try:
        content = path.read_bytes()
        if pointer := lfs_pointer(content[:512]):
            raise CheckpointError(f"{path} is a {pointer}.")
        return json.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise CheckpointError(f"{path} cannot be read as JSON: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
