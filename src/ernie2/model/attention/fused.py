"""Attention kernels of CUDA that read a pack as it lies: `varlen_attn` (packed) and runs of equal lengths (dense).

T tokens in the pack · N heads · D width of a head · H = N · D hidden · n sequences of one run, of length L
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.attention
import torch.nn.functional as F
from torch import Tensor

PackedKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]


def runs_of(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Neighbours of one length as (sequences, length): [5, 5, 2, 5] -> ((2, 5), (1, 2), (1, 5))."""
    sizes = np.asarray(lengths, dtype=np.int64)
    begins = np.flatnonzero(np.concatenate([[True], sizes[1:] != sizes[:-1]]))
    counts = np.diff(np.concatenate([begins, [len(sizes)]]))
    return tuple(zip(counts.tolist(), sizes[begins].tolist(), strict=True))


def attend_dense(qkv: Tensor, heads: int, runs: Sequence[tuple[int, int]], dropout: float) -> Tensor:
    """qkv (T, 3H) -> (T, H), same dtype. Every run is a view of the pack: nothing is copied before the kernel."""
    width = qkv.shape[1]
    outputs = []
    with torch.autocast(qkv.device.type, enabled=False), cudnn_first(qkv.device, dropout):
        for (count, length), part in zip(runs, torch.split(qkv, [n * each for n, each in runs]), strict=True):
            shape = (count, length, 3, heads, width // (3 * heads))
            query, key, value = (each.transpose(1, 2) for each in part.view(shape).unbind(2))  # each (n, N, L, D)
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            outputs.append(mixed.transpose(1, 2).reshape(-1, width // 3))  # (n · L, H)
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def attend_packed(qkv: Tensor, heads: int, kernel: PackedKernel, starts: Tensor, longest: int) -> Tensor:
    """qkv (T, 3H), starts (S + 1,) int32, no sequence longer than `longest` -> (T, H), same dtype."""
    tokens, width = qkv.shape
    query, key, value = qkv.view(tokens, 3, heads, width // (3 * heads)).unbind(1)  # each (T, N, D)
    return kernel(query, key, value, starts, starts, longest).reshape(tokens, width // 3)


def attend_packed_rows(
    query: Tensor,
    memory: Tensor,
    heads: int,
    kernel: PackedKernel,
    row_starts: Tensor,
    starts: Tensor,
    longest: int,
) -> Tensor:
    """query (R, H), its rows of each sequence at row_starts (S + 1,) int32; memory (T, 2H), keys and values of a token
    side by side, at starts (S + 1,) int32 -> (R, H), same dtype.
    """
    width = query.shape[1]
    key, value = memory.view(len(memory), 2, heads, width // heads).unbind(1)  # each (T, N, D)
    mixed = kernel(query.view(len(query), heads, width // heads), key, value, row_starts, starts, longest)
    return mixed.reshape(len(query), width)


@cache
def packed_kernel() -> PackedKernel | None:
    """Return `varlen_attn` of this torch, adapted, or None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return adapt_packed(varlen_attn)


def adapt_packed(varlen_attn: Callable[..., Any]) -> PackedKernel:
    """Return `varlen_attn` of any torch as (query, key, value, row_starts, starts, longest) -> output, full attention.

    query and output (R, N, D) begin a sequence at row_starts (S + 1,), key and value (T, N, D) at starts (S + 1,).
    The signature changes between releases: full attention is asked for by `is_causal=False` where there is such a
    parameter (2.10), and is the default where a window took its place (2.11 and later).
    """
    extra: dict[str, Any] = {"is_causal": False} if "is_causal" in inspect.signature(varlen_attn).parameters else {}

    def kernel(query: Tensor, key: Tensor, value: Tensor, row_starts: Tensor, starts: Tensor, longest: int) -> Tensor:
        mixed = varlen_attn(query, key, value, row_starts, starts, longest, longest, **extra)
        assert isinstance(mixed, Tensor)  # a pair only where asked for
        return mixed

    return kernel


def has_flash_kernels(device: torch.device) -> bool:
    """Return whether FlashAttention has kernels for this card."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def cudnn_first(device: torch.device, dropout: float) -> AbstractContextManager[object]:
    """On CUDA, tries cuDNN's kernel first and torch's others where it has none for these shapes, dtypes or dropout."""
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if _flash_would_raise(dropout):
        order.remove(SDPBackend.FLASH_ATTENTION)
    preferred: AbstractContextManager[object] = sdpa_kernel(order, set_priority=True)
    return preferred


def able_to_drop(device: torch.device, dropout: float) -> AbstractContextManager[object]:
    """On CUDA, leaves `scaled_dot_product_attention` its own choice among the kernels that can drop."""
    if device.type != "cuda" or not _flash_would_raise(dropout):
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    able: AbstractContextManager[object] = sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])
    return able


def _flash_would_raise(dropout: float) -> bool:
    """FlashAttention-3 and -4 have no dropout, yet torch picks them as if they had."""
    return dropout > 0 and active_flash() is not None


def active_flash() -> str | None:
    """Return the name of the implementation that took the place of FlashAttention-2, None where none did."""
    switch: Any = torch.nn.attention
    return switch.current_flash_attention_impl() if has_flash_switch() else None


def has_flash_switch() -> bool:
    """Return whether this torch lets FlashAttention-3 and -4 take the place of its own (2.11 and later)."""
    names = ("activate_flash_attention_impl", "current_flash_attention_impl")
    return all(hasattr(torch.nn.attention, name) for name in names)
