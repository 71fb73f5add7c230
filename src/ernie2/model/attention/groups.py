"""Attention in groups: sequences of similar length are padded to one length, with one kernel call per group.

T tokens in the pack · R query rows, all T or the scored ones · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to its longest L, each with at most Q query rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ernie2.model.transfer import to_device

_ROW_COST = 64
"""Estimated cost of one padded row, in attention pairs (queries × keys)."""
_GROUP_COST = 10_000
"""Estimated cost of one more group, in the same unit."""


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences padded to one length. `mask` (n, 1, 1, L) bool, true at real keys; None if all have length L."""

    sequences: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of the rows of a pack in the concatenated groups.

    `widths`: places per sequence, for each group. `gather` (Σ n · width,) int64: the row at each place; at padding any
    row of the pack. `scatter` (rows,) int64: the place of each row. `real` (Σ n · width, 1) bool: false at padding;
    None if there is no padding.
    """

    widths: tuple[int, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None

    def arrange(self, rows: Tensor) -> Tensor:
        """rows (R, H) in pack order -> (Σ n · width, H) in group order."""
        return reorder_rows(rows, self.gather, self.scatter)

    def restore(self, places: Tensor) -> Tensor:
        """places (Σ n · width, H) in group order -> (R, H) in pack order."""
        return reorder_rows(places, self.scatter, self.gather, self.real)


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups of a pack. `tokens`: layout of its tokens, None if pack order is group order. `scored`: layout of the
    scored rows, if any."""

    groups: tuple[Group, ...]
    tokens: Layout | None
    scored: Layout | None


def attend_groups(
    query: Tensor, key: Tensor, value: Tensor, heads: int, groups: Groups, queries: Layout | None, dropout: float
) -> Tensor:
    """query (R, H) with layout `queries`, key and value (T, H) -> (R, H), same dtype; computed in float32 on a CPU."""
    dtype = query.dtype
    if query.device.type == "cpu":  # its bf16 kernel is slower than fp32, backwards several times
        query, key, value = (each.to(torch.promote_types(dtype, torch.float32)) for each in (query, key, value))
    if groups.tokens is not None:
        key, value = groups.tokens.arrange(key), groups.tokens.arrange(value)
    if queries is not None:
        query = queries.arrange(query)
    lengths = [group.length for group in groups.groups]
    parts = []
    for rows, widths in ((query, queries.widths if queries else lengths), (key, lengths), (value, lengths)):
        sizes = [group.sequences * width for group, width in zip(groups.groups, widths, strict=True)]
        parts.append(torch.split(rows, sizes))
    outputs = []
    for group, *each in zip(groups.groups, *parts, strict=True):
        shape = (group.sequences, -1, heads, query.shape[1] // heads)
        queries_of_group, keys, values = (
            rows.view(shape).transpose(1, 2) for rows in each
        )  # (n, N, Q, D), two of (n, N, L, D)
        mixed = F.scaled_dot_product_attention(queries_of_group, keys, values, attn_mask=group.mask, dropout_p=dropout)
        outputs.append(mixed.transpose(1, 2).reshape(-1, query.shape[1]))  # (n · Q, H)
    joined = (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).to(dtype)
    return joined if queries is None else queries.restore(joined)


def equal_groups(lengths: Sequence[int], device: torch.device, row_starts: NDArray[Any] | None = None) -> Groups:
    """Return one group for sequences of equal length; arguments as in `pad_groups`."""
    scored = None
    if row_starts is not None:
        widths, arrays = place_rows([len(lengths)], np.arange(len(lengths)), row_starts)
        scored = _layout(widths, to_device(arrays, device))
    return Groups((Group(len(lengths), lengths[0], None),), None, scored)


def pad_groups(lengths: Sequence[int], device: torch.device, row_starts: NDArray[Any] | None = None) -> Groups:
    """Group the sequences of a pack by length, with the least work.

    `row_starts` (S + 1,): the first scored row of each sequence; the same groups and device copy are used for them.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    counts = [end - begin for begin, end in group_bounds(sizes[order].tolist())]
    widths, arrays = place_rows(counts, order, np.concatenate([[0], np.cumsum(sizes)]))
    row_widths, row_arrays = ((), []) if row_starts is None else place_rows(counts, order, row_starts)
    on_device = to_device([*arrays, *row_arrays], device)
    tokens = _layout(widths, on_device[: len(arrays)])
    groups = []
    end = 0
    for n, length in zip(counts, widths, strict=True):
        begin, end = end, end + n * length
        places = slice(begin, end)
        mask = None if tokens.real is None or arrays[2][places].all() else tokens.real[places].view(n, 1, 1, length)
        groups.append(Group(n, length, mask))
    return Groups(tuple(groups), tokens, None if row_starts is None else _layout(row_widths, on_device[len(arrays) :]))


def place_rows(
    sequences: Sequence[int], order: NDArray[Any], starts: NDArray[Any]
) -> tuple[tuple[int, ...], list[NDArray[Any]]]:
    """Return the widths of the groups, and the arrays gather, scatter and, if there is padding, real.

    `sequences`: number of sequences per group. `order` (S,): sequences, group by group. Sequence i has rows
    `starts[i] : starts[i + 1]`. Two sequences in one group, starts [0, 1, 3] -> widths (2,), gather [0, 0, 1, 2],
    scatter [0, 2, 3].
    """
    counts, begins = np.diff(starts)[order], starts[:-1][order]
    widths, gathers, reals = [], [], []
    end = 0
    for number in sequences:
        begin, end = end, end + number
        count, first = counts[begin:end, None], begins[begin:end, None]
        width = max(1, int(count.max()))
        steps = np.arange(width)
        # a sequence without rows repeats a row of another sequence; its result is never read
        gathers.append(np.minimum(first + np.minimum(steps, np.maximum(count - 1, 0)), starts[-1] - 1))
        reals.append(steps < count)
        widths.append(width)
    gather = np.concatenate([part.reshape(-1) for part in gathers]).astype(np.int64)
    real = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[real]] = np.flatnonzero(real)
    return tuple(widths), [gather, scatter, *([] if real.all() else [real[:, None]])]


def _layout(widths: tuple[int, ...], tensors: Sequence[Tensor]) -> Layout:
    """Return the layout for the result of `place_rows`, its arrays as tensors on a device."""
    gather, scatter, *real = tensors
    return Layout(widths, gather, scatter, real[0] if real else None)


def group_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Split ascending `lengths` into runs, each padded to its last length, with minimal cost.

    A run of n sequences padded to L costs n · L · (L + row cost) + group cost. The minimum is exact, by dynamic
    programming over the distinct lengths. [20, 20, 190] -> [(0, 2), (2, 3)].
    """
    distinct, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])  # ends[j]: sequences among the first j distinct lengths
    least = np.zeros(len(ends))  # least[j]: least cost of these
    cut = np.zeros(len(ends), dtype=np.int64)  # cut[j]: start of their last run
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


class _ReorderRows(torch.autograd.Function):
    """Gather rows by index; the gradient gathers by the reverse index. Without sums, it does not depend on threads.

    Requires that the indices are inverse on real tokens and that the gradient of repeated rows is zero. That holds at
    padding, which is masked as a key and never read as a query.
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


def reorder_rows(rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None = None) -> Tensor:
    """rows (A, W), index (B,) -> (B, W); `reverse` (A,) inverts `index` where `real` (A, 1) is true or None."""
    picked: Tensor = _ReorderRows.apply(rows, index, reverse, real)  # type: ignore[no-untyped-call]
    return picked
