"""Which of torch's fused attention kernels there are, and which `scaled_dot_product_attention` may take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.attention
from torch import Tensor

PackedKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]


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


def kernels_of_sdpa(device: torch.device, dropout: float, cudnn_first: bool) -> AbstractContextManager[object]:
    """On CUDA, keeps `scaled_dot_product_attention` from kernels that cannot drop.

    `cudnn_first`: try cuDNN's kernel first, and torch's others where it has none for these shapes, dtypes or dropout;
    else torch chooses.
    """
    flash_would_raise = dropout > 0 and active_flash() is not None  # FlashAttention-3 and -4 have no dropout
    if device.type != "cuda" or not (cudnn_first or flash_would_raise):
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    able = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if not flash_would_raise:  # torch picks them as if they had
        able.insert(0, SDPBackend.FLASH_ATTENTION)
    order = [SDPBackend.CUDNN_ATTENTION, *able] if cudnn_first else able
    preferred: AbstractContextManager[object] = sdpa_kernel(order, set_priority=cudnn_first)
    return preferred


def active_flash() -> str | None:
    """Return the name of the implementation that took the place of FlashAttention-2, None where none did."""
    switch: Any = torch.nn.attention
    return switch.current_flash_attention_impl() if has_flash_switch() else None


def has_flash_switch() -> bool:
    """Return whether this torch lets FlashAttention-3 and -4 take the place of its own (2.11 and later)."""
    names = ("activate_flash_attention_impl", "current_flash_attention_impl")
    return all(hasattr(torch.nn.attention, name) for name in names)
