"""Write NumPy arrays as .npy and .npz files, atomically, and tensors as .safetensors files. Pickle is never used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ernie2.storage.atomic import ADVICE, staged_file

if TYPE_CHECKING:
    from torch import Tensor


def write_array(path: Path, array: NDArray[Any], *, advice: str = ADVICE) -> None:
    """Write one array to `path`, which ends in .npy. Raises `StorageError`."""
    with staged_file(path, advice=advice) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, advice: str = ADVICE) -> None:
    """Write arrays by name to `path`, which ends in .npz. Raises `StorageError`."""
    with staged_file(path, advice=advice) as file:
        np.savez(file, allow_pickle=False, **arrays)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to `path`, a file in a staging directory of `storage.atomic`. Raises `OSError`.

    Tensors are moved to the CPU and copied if not contiguous. safetensors raises `RuntimeError` for tensors that share
    memory: pass copies.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(on_cpu, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # safetensors wraps every disk error
        raise OSError(str(error)) from error
