"""NumPy arrays in .npy and .npz files, written atomically and without pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.storage.atomic import WHAT_NOW, staged_file


def write_array(path: Path, array: NDArray[Any], *, what_now: str = WHAT_NOW) -> None:
    """Write one array to `path`, which ends in .npy. Raises `StorageError`."""
    with staged_file(path, what_now=what_now) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, what_now: str = WHAT_NOW) -> None:
    """Write arrays by name to `path`, which ends in .npz. Raises `StorageError`."""
    with staged_file(path, what_now=what_now) as file:
        np.savez(file, allow_pickle=False, **arrays)
