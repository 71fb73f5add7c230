"""NumPy arrays in .npy and .npz files, written atomically; tensors in .safetensors files. No pickles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ernie2.storage.atomic import WHAT_NOW, staged_file

if TYPE_CHECKING:
    from torch import Tensor


def write_array(path: Path, array: NDArray[Any], *, what_now: str = WHAT_NOW) -> None:
    """Write one array to `path`, which ends in .npy. Raises `StorageError`."""
    with staged_file(path, what_now=what_now) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, what_now: str = WHAT_NOW) -> None:
    """Write arrays by name to `path`, which ends in .npz. Raises `StorageError`."""
    with staged_file(path, what_now=what_now) as file:
        np.savez(file, allow_pickle=False, **arrays)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to `path`, which lies in a staging folder of `storage.atomic`. Raises `OSError`.

    Tensors are copied to the CPU and made contiguous where they are not. Tensors that share memory are refused by
    safetensors with a `RuntimeError`: pass copies.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # wraps every error of the disk in its own
        raise OSError(str(error)) from error
