"""Attention from scored rows to all tokens of their sequences, sequences padded group by group.

T tokens in the pack · R scored rows · N heads · D width of a head · H = N · D hidden
n sequences of one group, of length L, each with at most Q scored rows
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

from ernie2.model.attention.padded import Group, reordered
from ernie2.model.transfer import to_device


@dataclass(frozen=True, slots=True)
class PaddedQueries:
    """How scored rows lie in padded groups: `widths` is Q of each group; `gather`, `scatter` and `real` as in `Padded`,
    for the Σ n · Q places of all groups.
    """

    widths: tuple[int, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None


def pad_queries(
    sequences: Sequence[int], order: NDArray[Any], starts: NDArray[Any], device: torch.device
) -> PaddedQueries:
    """Lay rows `starts[i] : starts[i + 1]` of sequence i out for groups of so many `sequences`, in `order` (S,)."""
    counts, begins = np.diff(starts)[order], starts[:-1][order]
    widths, gathers, reals = [], [], []
    end = 0
    for number in sequences:
        begin, end = end, end + number
        count, first = counts[begin:end, None], begins[begin:end, None]
        width = max(1, int(count.max()))
        steps = np.arange(width)
        # a sequence without scored rows repeats another one's row, whose result is never read
        gathers.append(np.minimum(first + np.minimum(steps, np.maximum(count - 1, 0)), starts[-1] - 1))
        reals.append(steps < count)
        widths.append(width)
    gather = np.concatenate([part.reshape(-1) for part in gathers]).astype(np.int64)
    kept = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    to, back, *real = to_device([gather, scatter, *([] if kept.all() else [kept[:, None]])], device)
    return PaddedQueries(tuple(widths), to, back, real[0] if real else None)


def attend_row_groups(
    query: Tensor, memory: Tensor, heads: int, groups: Sequence[Group], queries: PaddedQueries, dropout: float
) -> Tensor:
    """query (R, H); memory, keys and values side by side (Σ n · L, 2H) in the order of `groups` -> (R, H)."""
    width = query.shape[1]
    padded = reordered(query, queries.gather, queries.scatter)  # (Σ n · Q, H)
    sizes = [group.sequences * each for group, each in zip(groups, queries.widths, strict=True)]
    memories = torch.split(memory, [group.sequences * group.length for group in groups])
    outputs = []
    for group, each, rows, part in zip(groups, queries.widths, torch.split(padded, sizes), memories, strict=True):
        key, value = part.view(group.sequences, group.length, 2, heads, width // heads).transpose(1, 3).unbind(2)
        asking = rows.view(group.sequences, each, heads, width // heads).transpose(1, 2)  # (n, N, Q, D)
        mixed = F.scaled_dot_product_attention(asking, key, value, attn_mask=group.mask, dropout_p=dropout)
        outputs.append(mixed.transpose(1, 2).reshape(-1, width))  # (n · Q, H)
    return reordered(torch.cat(outputs), queries.scatter, queries.gather, queries.real)
