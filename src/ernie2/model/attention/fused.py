"""Which of torch's fused attention kernels there are, and which `scaled_dot_product_attention` may take.

FlashAttention-3 and -4 in place of torch's FlashAttention-2, through torch's own switch, where one is installed.

`varlen_attn` obeys the switch, forward and backward, compiled or not: the switch replaces the operators it calls.
`scaled_dot_product_attention` obeys only where it picks its flash kernel: not where cuDNN comes first (`dense`), and
never with a mask (most padded groups). The new kernels have no dropout and raise when asked for it: `varlen_attn` never
asks, and `sdpa_kernels` keeps the other from picking them then.

Results differ from those of FlashAttention-2 by rounding.
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
"""By name in torch's registry, newest first: major compute capabilities of its cards, module that torch imports."""
_TOLERANCE = 0.03
"""Largest relative difference from plain attention in float32; that of bf16 is below 0.01."""


def packed_kernel() -> Callable[..., Any]:
    """Return torch's `varlen_attn`, whose import takes long: (query, key, value, row_starts, starts, longest, longest).

    query and output (R, N, D) begin a sequence at row_starts (S + 1,), key and value (T, N, D) at starts (S + 1,).
    """
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def has_flash_kernels(device: torch.device) -> bool:
    """Return whether FlashAttention has kernels for this card."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def sdpa_kernels(device: torch.device, dropout: float, cudnn_first: bool) -> AbstractContextManager[object]:
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
    switch: Any = nn.attention
    name: str | None = switch.current_flash_attention_impl()
    return name


@cache
def activate_newest_flash(device: torch.device, head_width: int, warn: Callable[[str], None]) -> str | None:
    """Activate the newest implementation that is installed and works on `device`; return the name of the active one.

    Call it before anything is compiled. Each candidate is tried on three short sequences of bf16 with heads of
    `head_width`. One that is installed and fails is reported to `warn` in one line and left out. Nothing happens on a
    CPU, or after the user activated an implementation of their own.
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
        except Exception as error:  # the packages are young: a wrong version raises TypeError or AssertionError as well
            if active_flash() is not None:
                switch.restore_flash_attention_impl()
            if not _is_missing(error, module):
                reason = (str(error).strip().splitlines() or [""])[0]
                warn(f"Note: {name} is installed but not used ({type(error).__name__}: {reason[:200]}).")
        else:
            return name
    return None


def check_packed_kernel(device: torch.device, head_width: int) -> None:
    """Raise `RuntimeError` where output or gradients of the packed kernel are not those of plain attention."""
    lengths = [3, 70, 140]
    random = torch.Generator().manual_seed(0)  # not the run's generator
    for asked in (lengths, [1, 0, 9]):  # every token, and scored rows: a sequence may have none
        rows = (sum(asked), sum(lengths), sum(lengths), sum(asked))
        *qkv, above = (torch.randn(n, 2, head_width, generator=random).to(device, torch.bfloat16) for n in rows)
        starts = [torch.tensor([0, *sizes]).cumsum(0, dtype=torch.int32).to(device) for sizes in (asked, lengths)]
        run_kernel = partial(_run_packed, starts=starts, longest=max(lengths))
        found = _output_and_gradients(run_kernel, qkv, above)
        run_plain = partial(_run_plain, lengths=(asked, lengths, lengths))
        expected = _output_and_gradients(run_plain, [each.float() for each in qkv], above.float())
        for ours, theirs in zip(found, expected, strict=True):
            if not float((ours.float() - theirs).norm() / theirs.norm()) < _TOLERANCE:
                raise RuntimeError("its results are not those of plain attention")


def _run_packed(*qkv: Tensor, starts: Sequence[Tensor], longest: int) -> Tensor:
    mixed: Tensor = packed_kernel()(*qkv, *starts, longest, longest)
    return mixed


def _run_plain(*qkv: Tensor, lengths: Sequence[Sequence[int]]) -> Tensor:
    """query (R, N, D), key and value (T, N, D), of sequences of `lengths` each -> (R, N, D)."""
    outputs = []
    parts = (torch.split(each, list(sizes)) for each, sizes in zip(qkv, lengths, strict=True))
    for query, key, value in zip(*parts, strict=True):
        scores = torch.einsum("qnd,lnd->nql", query, key) / query.shape[-1] ** 0.5
        outputs.append(torch.einsum("nql,lnd->qnd", scores.softmax(-1), value))
    return torch.cat(outputs)


def _output_and_gradients(attend: Callable[..., Tensor], qkv: Sequence[Tensor], above: Tensor) -> list[Tensor]:
    """Output of `attend` for `qkv`, then the gradients of the three, `above` being that of the output."""
    with torch.enable_grad():
        leaves = [each.detach().requires_grad_() for each in qkv]
        mixed = attend(*leaves)
        return [mixed.detach(), *torch.autograd.grad(mixed, leaves, above)]


def _is_missing(error: Exception, module: str) -> bool:
    """Whether `module` is not installed, rather than something that it needs."""
    return isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
