"""Attention from scored rows to all tokens of their sequences, sequences padded group by group.

T tokens in the pack · R scored rows · N heads · D width of a head · H = N · D hidden
n sequences of one group, of length L, each with at most Q scored rows
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ernie2.model.attention.padded import Group, reordered
from ernie2.model.attention.queries import PaddedQueries


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
