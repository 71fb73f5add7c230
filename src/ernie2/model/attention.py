"""Attention inside each sequence of a pack, and the one function that picks the kernel for it.

T tokens in the pack · S sequences · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to the group's longest L · R = Σ n · L rows of all groups

On CUDA the packed kernel `varlen_attn` runs over the pack as it lies. Everywhere else, and where attention weights are
to be dropped out (which the packed kernel cannot), sequences of similar length are padded to one length and go through
`scaled_dot_product_attention` group by group. How sequences fall into groups is decided once a batch, for all layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernie2.model.inputs import Inputs

_ROW_COST = 64
"""What carrying one padded row costs, in units of attention pairs (queries × keys); an estimate."""
_GROUP_COST = 10_000
"""What one more group costs, in the same units."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences padded to one length. `mask` (n, 1, 1, L) bool, true at real keys; None where all have length L."""

    sequences: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Padded:
    """How the tokens of a pack lie in padded groups.

    `gather` (R,) int64: the token of each row, the sequence's last one where the row is padding. `scatter` (T,) int64:
    the row of each token. `real` (R, 1) bool, false at padding; None where nothing is padding.
    """

    groups: tuple[Group, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None

    @property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        return [group.sequences * group.length for group in self.groups]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about where sequences begin and end: `padded`, or the packed kernel's `starts`."""

    starts: Tensor
    longest: int
    padded: Padded | None


def plan_attention(inputs: Inputs, dtype: torch.dtype, dropout: float = 0.0) -> AttentionPlan:
    """Picks the kernel for this batch and lays its sequences out for it.

    `dtype`: what queries, keys and values will have (the packed kernel knows 16 bits only). `dropout`: the share of
    attention weights to be dropped.
    """
    packed = inputs.tokens.device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and dropout == 0.0
    if packed and _packed_kernel() is not None:
        return AttentionPlan(inputs.starts, inputs.longest, padded=None)
    return AttentionPlan(inputs.starts, inputs.longest, _pad(inputs.lengths, inputs.tokens.device))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What matrix products with `tensor` run in here: the autocast dtype where autocast is on, else its own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def attend(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float = 0.0) -> Tensor:
    """Softmax attention of every token over the tokens of its own sequence.

    qkv (T, 3H), the queries, keys and values of a token side by side -> (T, H), same dtype. `dropout` is the share of
    attention weights dropped, 0 outside training.
    """
    tokens, width = qkv.shape
    head_width = width // (3 * heads)
    if plan.padded is None:
        kernel = _packed_kernel()
        assert kernel is not None
        query, key, value = qkv.view(tokens, 3, heads, head_width).unbind(1)  # each (T, N, D)
        return kernel(query, key, value, plan.starts, plan.longest).reshape(tokens, width // 3)
    padded = plan.padded
    rows = _rows(qkv, padded.gather, padded.scatter, None)  # (R, 3H)
    outputs = []
    with torch.autocast(qkv.device.type, enabled=False):
        if qkv.device.type == "cpu":
            rows = rows.float()  # the bf16 kernel of CPUs is slower than the fp32 one, several times so backwards
        for group, part in zip(padded.groups, torch.split(rows, padded.sizes), strict=True):
            shape = (group.sequences, group.length, 3, heads, head_width)
            query, key, value = (each.transpose(1, 2) for each in part.view(shape).unbind(2))  # each (n, N, L, D)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=group.mask, dropout_p=dropout)
            outputs.append(mixed.transpose(1, 2).reshape(-1, width // 3))  # (n · L, H)
    return _rows(torch.cat(outputs).to(qkv.dtype), padded.scatter, padded.gather, padded.real)


def _pad(lengths: Sequence[int], device: torch.device) -> Padded:
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.argsort(sizes, kind="stable")
    groups, gathers, reals = [], [], []
    for begin, end in group_bounds(sizes[order].tolist()):
        members = order[begin:end]
        length = int(sizes[members[-1]])
        steps = np.arange(length)
        real = steps < sizes[members, None]  # (n, L)
        gathers.append(starts[members, None] + np.minimum(steps, sizes[members, None] - 1))
        reals.append(real)
        mask = None if real.all() else torch.from_numpy(real)[:, None, None, :].to(device)
        groups.append(Group(len(members), length, mask))
    gather = np.concatenate([part.reshape(-1) for part in gathers])
    kept = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    real_rows = None if kept.all() else torch.from_numpy(kept)[:, None].to(device)
    return Padded(tuple(groups), torch.from_numpy(gather).to(device), torch.from_numpy(scatter).to(device), real_rows)


def group_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts ascending `lengths` into runs, each padded to its last, so that the least work is done.

    A run of n sequences padded to L costs n · L · (L + row cost) + group cost; the sum is made least exactly, by
    dynamic programming over the distinct lengths. [20, 20, 190] -> [(0, 2), (2, 3)].
    """
    distinct, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])  # ends[j]: sequences among the first j distinct lengths
    least = np.zeros(len(ends))  # least[j]: least work for those
    cut = np.zeros(len(ends), dtype=np.int64)  # cut[j]: where their last run begins
    for j, length in enumerate(distinct.tolist(), start=1):
        work = least[:j] + (ends[j] - ends[:j]) * float(length * (length + _ROW_COST)) + _GROUP_COST
        cut[j] = work.argmin()
        least[j] = work[cut[j]]
    bounds = []
    j = len(distinct)
    while j:
        bounds.append((int(ends[cut[j]]), int(ends[j])))
        j = int(cut[j])
    return bounds[::-1]


class _Rows(torch.autograd.Function):
    """Rows of a matrix by index, whose gradient is rows by the reverse index: no sums, so the same on any threads.

    Only where the two indices undo each other on the real tokens and the gradient of what `index` repeats is zero, as
    it is at padding, which is masked as a key and never read as a query.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None) -> Tensor:
        """rows (A, W), index (B,), reverse (A,), real (A, 1) bool or None -> (B, W)."""
        ctx.reverse, ctx.real = reverse, real
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """gradient (B, W) -> (A, W), zero where `real` is false."""
        rows = gradient.index_select(0, ctx.reverse)
        return rows if ctx.real is None else rows.mul_(ctx.real), None, None, None


def _rows(rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None) -> Tensor:
    picked: Tensor = _Rows.apply(rows, index, reverse, real)  # type: ignore[no-untyped-call]
    return picked


PackedKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


@cache
def _packed_kernel() -> PackedKernel | None:
    """`varlen_attn` of this torch as (query, key, value, starts, longest) -> output, each (T, N, D); None where absent.

    Its signature changes between releases: full attention is asked for by `is_causal=False` where there is such a
    parameter, and is the default where a window took its place.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    extra: dict[str, Any] = {"is_causal": False} if "is_causal" in inspect.signature(varlen_attn).parameters else {}

    def kernel(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
        mixed = varlen_attn(query, key, value, starts, starts, longest, longest, **extra)
        assert isinstance(mixed, Tensor)  # a pair only where asked for
        return mixed

    return kernel
