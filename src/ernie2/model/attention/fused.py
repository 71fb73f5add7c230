"""torch's fused attention kernels: which are available, and which ones `scaled_dot_product_attention` may use.

FlashAttention-3 or -4, if installed, replaces torch's FlashAttention-2 through torch's own switch.

`varlen_attn` follows the switch, forward and backward, compiled or not, because the switch replaces its operators.
`scaled_dot_product_attention` follows it only if it chooses its flash kernel: not if cuDNN comes first (`dense`), and
never with a mask (most padded groups). The new kernels do not support dropout and raise an error if it is requested.
`varlen_attn` never requests it, and `sdpa_kernels` excludes the flash kernel in that case.

Results differ from FlashAttention-2 by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.nn.attention
from torch import Tensor, nn

_FLASH_VERSIONS = {"FA4": ((9, 10), "flash_attn.cute.interface"), "FA3": ((9,), "flash_attn_interface")}
"""Name in torch's registry, newest first → supported major compute capabilities, module that torch imports."""
_TOLERANCE = 0.03
"""Allowed relative difference from plain attention in float32; the usual one in bf16 is below 0.01."""


def packed_kernel() -> Callable[..., Any]:
    """Return torch's `varlen_attn`, slow to import: (query, key, value, row_starts, starts, longest, longest).

    Sequences begin at row_starts (S + 1,) in query and output (R, N, D), at starts (S + 1,) in key and value (T, N, D).
    """
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def has_flash_kernels(device: torch.device) -> bool:
    """Return whether FlashAttention supports this GPU."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def sdpa_kernels(device: torch.device, dropout: float, cudnn_first: bool) -> AbstractContextManager[object]:
    """On CUDA, exclude kernels without dropout support from `scaled_dot_product_attention`.

    `cudnn_first`: try cuDNN first, then torch's other kernels if cuDNN does not support the shapes, dtypes or dropout;
    otherwise torch chooses.
    """
    flash_would_raise = dropout > 0 and active_flash() is not None  # FlashAttention-3 and -4 have no dropout
    if device.type != "cuda" or not (cudnn_first or flash_would_raise):
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    allowed = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    if not flash_would_raise:  # torch would choose it although it has no dropout
        allowed.insert(0, SDPBackend.FLASH_ATTENTION)
    order = [SDPBackend.CUDNN_ATTENTION, *allowed] if cudnn_first else allowed
    preferred: AbstractContextManager[object] = sdpa_kernel(order, set_priority=cudnn_first)
    return preferred


def active_flash() -> str | None:
    """Return the name of the implementation that replaces FlashAttention-2, or None."""
    switch: Any = nn.attention
    name: str | None = switch.current_flash_attention_impl()
    return name


@cache
def activate_newest_flash(device: torch.device, head_width: int, warn: Callable[[str], None]) -> str | None:
    """Activate the newest FlashAttention that is installed and works on `device`; return the active one.

    Call this before compiling anything. Each candidate is tested on three short bf16 sequences with heads of
    `head_width`. An installed one that fails is reported to `warn` in one line and skipped. Does nothing on a CPU, or
    if the user has activated another implementation.
    """
    if device.type != "cuda" or active_flash() not in (None, *_FLASH_VERSIONS):
        return active_flash()
    switch: Any = nn.attention
    major, _ = torch.cuda.get_device_capability(device)
    for name in _FLASH_VERSIONS if active_flash() is None else [str(active_flash())]:
        majors, module = _FLASH_VERSIONS[name]
        if major not in majors or name not in switch.list_flash_attention_impls():
            continue
        try:
            if active_flash() != name:
                switch.activate_flash_attention_impl(name)
            check_packed_kernel(device, head_width)
        except Exception as error:  # a mismatched version may raise TypeError or AssertionError
            if active_flash() is not None:
                switch.restore_flash_attention_impl()
            if not _is_missing(error, module):
                reason = (str(error).strip().splitlines() or [""])[0]
                warn(f"Note: {name} is installed but not used ({type(error).__name__}: {reason[:200]}).")
        else:
            return name
    return None


def check_packed_kernel(device: torch.device, head_width: int) -> None:
    """Raise `RuntimeError` if output or gradients of the packed kernel differ from plain attention."""
    lengths = [3, 70, 140]
    random = torch.Generator().manual_seed(0)  # not the run's generator
    for row_counts in (lengths, [1, 0, 9]):  # all tokens, then scored rows, of which a sequence may have none
        rows = (sum(row_counts), sum(lengths), sum(lengths), sum(row_counts))
        *qkv, above = (torch.randn(n, 2, head_width, generator=random).to(device, torch.bfloat16) for n in rows)
        starts = [torch.tensor([0, *sizes]).cumsum(0, dtype=torch.int32).to(device) for sizes in (row_counts, lengths)]
        run_kernel = partial(_run_packed, starts=starts, longest=max(lengths))
        actual = _output_and_gradients(run_kernel, qkv, above)
        run_plain = partial(_run_plain, lengths=(row_counts, lengths, lengths))
        expected = _output_and_gradients(run_plain, [each.float() for each in qkv], above.float())
        for ours, theirs in zip(actual, expected, strict=True):
            if not float((ours.float() - theirs).norm() / theirs.norm()) < _TOLERANCE:
                raise RuntimeError("its results differ from plain attention")


def _run_packed(*qkv: Tensor, starts: Sequence[Tensor], longest: int) -> Tensor:
    mixed: Tensor = packed_kernel()(*qkv, *starts, longest, longest)
    return mixed


def _run_plain(*qkv: Tensor, lengths: Sequence[Sequence[int]]) -> Tensor:
    """query (R, N, D), key and value (T, N, D), sequence `lengths` of each -> (R, N, D)."""
    outputs = []
    parts = (torch.split(each, list(sizes)) for each, sizes in zip(qkv, lengths, strict=True))
    for query, key, value in zip(*parts, strict=True):
        scores = torch.einsum("qnd,lnd->nql", query, key) / query.shape[-1] ** 0.5
        outputs.append(torch.einsum("nql,lnd->qnd", scores.softmax(-1), value))
    return torch.cat(outputs)


def _output_and_gradients(attend: Callable[..., Tensor], qkv: Sequence[Tensor], above: Tensor) -> list[Tensor]:
    """Return the output of `attend` for `qkv` and the three gradients; `above` is the gradient of the output."""
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in qkv]
        mixed = attend(*leaves)
        return [mixed.detach(), *torch.autograd.grad(mixed, leaves, above)]


def _is_missing(error: Exception, module: str) -> bool:
    """Return whether `module` itself is not installed, not one of its dependencies."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
