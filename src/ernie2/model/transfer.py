"""Copy arrays to a device and back, each way in one transfer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNED = 16
"""Alignment in bytes of every array in the buffer, for the widest loads of kernels."""


def to_device(arrays: Sequence[NDArray[Any]], device: torch.device | str) -> list[Tensor]:
    """Return `arrays` as tensors on `device`, with the same shapes and dtypes.

    On CUDA they are views of one buffer, pinned and copied on a separate stream: the host does not wait, and the copy
    overlaps with computation. On a CPU they share memory with `arrays`.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return [torch.from_numpy(array).to(device) for array in arrays]
    ends = list(accumulate(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays))
    begins = [0, *ends]
    buffer = np.empty(max(begins[-1], _ALIGNED), np.uint8)
    for begin, array in zip(begins, arrays, strict=False):
        buffer[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    copied = _copy_async(torch.from_numpy(buffer), device)
    return [
        copied[begin : begin + array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        for begin, array in zip(begins, arrays, strict=False)
    ]


def to_host(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Return `tensors`, all on one device, as arrays, with one synchronisation; on a CPU they share memory."""
    if not tensors or tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    joined = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors])
    return _split_bytes(joined.cpu().numpy(), tensors)


def _split_bytes(joined: NDArray[Any], like: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Split concatenated bytes into arrays with the shapes and dtypes of `like`."""
    ends = accumulate(tensor.nbytes for tensor in like)
    return [
        joined[end - tensor.nbytes : end]
        .copy()
        .view(torch.empty(0, dtype=tensor.dtype).numpy().dtype)
        .reshape(tensor.shape)
        for end, tensor in zip(ends, like, strict=True)
    ]


def _copy_async(host: Tensor, device: torch.device) -> Tensor:
    """Queue a copy of `host` on the copy stream of `device`; later work on the current stream waits for it."""
    current, copying = torch.cuda.current_stream(device), _copy_stream(device)
    with torch.cuda.stream(copying):
        copied = host.pin_memory().to(device, non_blocking=True)  # torch keeps the pinned memory until it is read
    current.wait_stream(copying)
    copied.record_stream(current)  # otherwise its memory could be reused while the current stream still reads it
    return copied


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
