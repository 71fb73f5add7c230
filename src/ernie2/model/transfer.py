"""Arrays of the host as tensors on a device, and back, each way in one copy."""

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
"""Bytes at a multiple of which every array begins, as the widest loads of kernels want."""


def to_device(arrays: Sequence[NDArray[Any]], device: torch.device | str) -> list[Tensor]:
    """Return `arrays` as tensors of their shapes and dtypes on `device`.

    On CUDA they are views of one buffer, which is pinned and copied on a stream of its own: the host waits for nothing,
    and the copy runs beside what the device computes. On a CPU they share memory with `arrays`.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return [torch.from_numpy(array).to(device) for array in arrays]
    ends = list(accumulate(-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays))
    begins = [0, *ends]
    laid = np.empty(max(begins[-1], _ALIGNED), np.uint8)
    for begin, array in zip(begins, arrays, strict=False):
        laid[begin : begin + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    copied = _copy_async(torch.from_numpy(laid), device)
    return [
        copied[begin : begin + array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        for begin, array in zip(begins, arrays, strict=False)
    ]


def to_host(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Return the values of `tensors`, all on one device, waiting for it once; on a CPU they share memory."""
    if not tensors or tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    joined = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors])
    return _split_bytes(joined.cpu().numpy(), tensors)


def _split_bytes(joined: NDArray[Any], like: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The bytes of tensors, one after the other, as arrays of the shapes and dtypes of `like`."""
    ends = accumulate(tensor.nbytes for tensor in like)
    return [
        joined[end - tensor.nbytes : end]
        .copy()
        .view(torch.empty(0, dtype=tensor.dtype).numpy().dtype)
        .reshape(tensor.shape)
        for end, tensor in zip(ends, like, strict=True)
    ]


def _copy_async(host: Tensor, device: torch.device) -> Tensor:
    """Queue a copy of `host` on the copying stream of `device`; what the current stream is given next waits for it."""
    current, copying = torch.cuda.current_stream(device), _copying_stream(device)
    with torch.cuda.stream(copying):
        copied = host.pin_memory().to(device, non_blocking=True)  # torch keeps pinned memory until it was read
    current.wait_stream(copying)
    copied.record_stream(current)  # else its memory could be given away while the current stream still reads it
    return copied


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
