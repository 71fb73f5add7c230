"""Tensors to a safetensors file, with the errors of a disk told as such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to `path`, which lies in a staging folder of `storage.atomic`. Raises `OSError`.

    Tensors are copied to the CPU and made contiguous where they are not. Tensors that share memory are refused by
    safetensors with a `RuntimeError`: pass copies.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # wraps every error of the disk in its own
        raise OSError(str(error)) from error
