"""Attention in groups: sequences of similar length padded to one length, one kernel call a group.

T tokens in the pack · R rows that ask, all T or the scored ones · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to its longest L, each with at most Q rows that ask
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
class Layout:
    """Where rows of a pack lie in the groups, one group after the other.

    `widths`: places of a sequence, group by group. `gather` (Σ n · width,) int64: the row at each place, another row of
    the pack where the place is padding. `scatter` (rows,) int64: the place of each row. `real` (Σ n · width, 1) bool,
    false at padding; None where nothing is padding.
    """

    widths: tuple[int, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None

    def arrange(self, rows: Tensor) -> Tensor:
        """rows (R, H) of the pack -> (Σ n · width, H), as they lie in the groups."""
        return reorder_rows(rows, self.gather, self.scatter)

    def restore(self, places: Tensor) -> Tensor:
        """places (Σ n · width, H) in the groups -> (R, H), as they lie in the pack."""
        return reorder_rows(places, self.scatter, self.gather, self.real)


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups of a pack. `tokens`: where its tokens lie, None where they lie so in the pack already. `scored`: where
    the scored rows lie, if there are any."""

    groups: tuple[Group, ...]
    tokens: Layout | None
    scored: Layout | None


def attend_groups(
    query: Tensor, key: Tensor, value: Tensor, heads: int, groups: Groups, queries: Layout | None, dropout: float
) -> Tensor:
    """query (R, H), which lie as `queries` say, key and value (T, H) -> (R, H), same dtype; float32 on a CPU."""
    dtype = query.dtype
    if query.device.type == "cpu":  # its bf16 kernel is slower than the fp32 one, several times so backwards
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
        asking, keys, values = (rows.view(shape).transpose(1, 2) for rows in each)  # (n, N, Q, D), two of (n, N, L, D)
        mixed = F.scaled_dot_product_attention(asking, keys, values, attn_mask=group.mask, dropout_p=dropout)
        outputs.append(mixed.transpose(1, 2).reshape(-1, query.shape[1]))  # (n · Q, H)
    joined = (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).to(dtype)
    return joined if queries is None else queries.restore(joined)


def equal_groups(lengths: Sequence[int], device: torch.device, row_starts: NDArray[Any] | None = None) -> Groups:
    """The one group of sequences that all have one length; arguments as in `pad_groups`."""
    scored = None
    if row_starts is not None:
        widths, arrays = place_rows([len(lengths)], np.arange(len(lengths)), row_starts)
        scored = _layout(widths, to_device(arrays, device))
    return Groups((Group(len(lengths), lengths[0], None),), None, scored)


def pad_groups(lengths: Sequence[int], device: torch.device, row_starts: NDArray[Any] | None = None) -> Groups:
    """Assign the sequences of a pack to groups by length, with as little work as possible.

    `row_starts` (S + 1,): the first scored row of each sequence; laid out for the same groups in the same copy.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    counts = [end - begin for begin, end in group_bounds(sizes[order].tolist())]
    widths, arrays = place_rows(counts, order, np.concatenate([[0], np.cumsum(sizes)]))
    row_widths, asking = ((), []) if row_starts is None else place_rows(counts, order, row_starts)
    on_device = to_device([*arrays, *asking], device)
    tokens = _layout(widths, on_device[: len(arrays)])
    groups = []
    end = 0
    for n, length in zip(counts, widths, strict=True):
        begin, end = end, end + n * length
        own = slice(begin, end)
        mask = None if tokens.real is None or arrays[2][own].all() else tokens.real[own].view(n, 1, 1, length)
        groups.append(Group(n, length, mask))
    return Groups(tuple(groups), tokens, None if row_starts is None else _layout(row_widths, on_device[len(arrays) :]))


def place_rows(
    sequences: Sequence[int], order: NDArray[Any], starts: NDArray[Any]
) -> tuple[tuple[int, ...], list[NDArray[Any]]]:
    """Return the widths of groups of so many `sequences`, and gather, scatter and, if anything is padding, real.

    Rows `starts[i] : starts[i + 1]` are those of sequence i; `order` (S,) lists the sequences group by group. Two
    sequences in one group, starts [0, 1, 3] -> widths (2,), gather [0, 0, 1, 2], scatter [0, 2, 3].
    """
    counts, begins = np.diff(starts)[order], starts[:-1][order]
    widths, gathers, reals = [], [], []
    end = 0
    for number in sequences:
        begin, end = end, end + number
        count, first = counts[begin:end, None], begins[begin:end, None]
        width = max(1, int(count.max()))
        steps = np.arange(width)
        # a sequence without rows repeats another one's row, whose result is never read
        gathers.append(np.minimum(first + np.minimum(steps, np.maximum(count - 1, 0)), starts[-1] - 1))
        reals.append(steps < count)
        widths.append(width)
    gather = np.concatenate([part.reshape(-1) for part in gathers]).astype(np.int64)
    kept = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    return tuple(widths), [gather, scatter, *([] if kept.all() else [kept[:, None]])]


def _layout(widths: tuple[int, ...], tensors: Sequence[Tensor]) -> Layout:
    """What `place_rows` returned, with its arrays as tensors of a device."""
    gather, scatter, *real = tensors
    return Layout(widths, gather, scatter, real[0] if real else None)


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


class _ReorderRows(torch.autograd.Function):
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


def reorder_rows(rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None = None) -> Tensor:
    """rows (A, W), index (B,) -> (B, W); `reverse` (A,) undoes `index` wherever `real` (A, 1) is true or None."""
    picked: Tensor = _ReorderRows.apply(rows, index, reverse, real)  # type: ignore[no-untyped-call]
    return picked
