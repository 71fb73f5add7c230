"""Attention in padded groups: sequences of similar length padded to one length, one kernel call a group.

T tokens in the pack · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to the group's longest L · R = Σ n · L rows of all groups
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ernie2.model.attention.fused import able_to_drop
from ernie2.model.attention.products import ProductPlan, attend_products
from ernie2.model.attention.queries import PaddedQueries, padded_queries, place_queries
from ernie2.model.levers import enabled
from ernie2.model.transfer import to_device

_ROW_COST = 64
"""Cost of carrying one padded row, in units of attention pairs (queries × keys); an estimate."""
_GROUP_COST = 10_000
"""Cost of one more group, in the same units."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences padded to one length. `mask` (n, 1, 1, L) bool, true at real keys; None where all have length L."""

    sequences: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Padded:
    """How the tokens of a pack lie in padded groups.

    `order` (S,) int64: the sequences, group after group. `gather` (R,) int64: the token of each row, the sequence's
    last one where the row is padding. `scatter` (T,) int64: the row of each token. `real` (R, 1) bool, false at
    padding; None where nothing is padding. `queries`: how scored rows lie in the same groups, if rows were given.
    `products`: by number of heads, what matrix products on a CPU need besides, filled by the first layer.
    """

    groups: tuple[Group, ...]
    order: NDArray[Any]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None
    queries: PaddedQueries | None = None
    products: dict[int, ProductPlan] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        return [group.sequences * group.length for group in self.groups]


def attend_padded(qkv: Tensor, heads: int, padded: Padded, dropout: float) -> Tensor:
    """qkv (T, 3H) -> (T, H), same dtype; on a CPU scores and softmax are float32."""
    if qkv.device.type == "cpu" and enabled("attention_products"):
        return attend_products(qkv, heads, padded, dropout)
    width = qkv.shape[1]
    head_width = width // (3 * heads)
    rows = reordered(qkv, padded.gather, padded.scatter, None)  # (R, 3H)
    outputs = []
    with torch.autocast(qkv.device.type, enabled=False), able_to_drop(qkv.device, dropout):
        if qkv.device.type == "cpu":
            # the bf16 kernel of CPUs is slower than the fp32 one, several times so backwards
            rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        for group, part in zip(padded.groups, torch.split(rows, padded.sizes), strict=True):
            shape = (group.sequences, group.length, 3, heads, head_width)
            query, key, value = (each.transpose(1, 2) for each in part.view(shape).unbind(2))  # each (n, N, L, D)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=group.mask, dropout_p=dropout)
            outputs.append(mixed.transpose(1, 2).reshape(-1, width // 3))  # (n · L, H)
    return reordered(torch.cat(outputs).to(qkv.dtype), padded.scatter, padded.gather, padded.real)


def pad_groups(lengths: Sequence[int], device: torch.device, row_starts: NDArray[Any] | None = None) -> Padded:
    """Assign the sequences of a pack to groups by length, with as little work as possible.

    `row_starts` (S + 1,): the first scored row of each sequence; laid out for the same groups in the same copy.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.argsort(sizes, kind="stable")
    shapes, gathers, reals = [], [], []
    for begin, end in group_bounds(sizes[order].tolist()):
        members = order[begin:end]
        length = int(sizes[members[-1]])
        steps = np.arange(length)
        gathers.append((starts[members, None] + np.minimum(steps, sizes[members, None] - 1)).reshape(-1))
        reals.append((steps < sizes[members, None]).reshape(-1))
        shapes.append((len(members), length))
    gather, kept = np.concatenate(gathers), np.concatenate(reals)  # (R,)
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    widths, asking = ((), []) if row_starts is None else place_queries([n for n, _ in shapes], order, row_starts)
    rows, places, real, *asked = to_device([gather, scatter, kept, *asking], device)
    masks = torch.split(real, [count * length for count, length in shapes])
    groups = [
        Group(count, length, None if part.all() else mask.view(count, 1, 1, length))
        for (count, length), part, mask in zip(shapes, reals, masks, strict=True)
    ]
    queries = padded_queries(widths, asked) if asked else None
    return Padded(tuple(groups), order, rows, places, None if kept.all() else real[:, None], queries)


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


class _Reordered(torch.autograd.Function):
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


def reordered(rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None = None) -> Tensor:
    """rows (A, W), index (B,) -> (B, W); `reverse` (A,) undoes `index` wherever `real` (A, 1) is true or None."""
    picked: Tensor = _Reordered.apply(rows, index, reverse, real)  # type: ignore[no-untyped-call]
    return picked
