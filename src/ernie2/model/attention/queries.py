"""Where scored rows lie as queries of padded groups, laid out on the host.

R scored rows · n sequences of one group, each with at most Q scored rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PaddedQueries:
    """How scored rows lie in padded groups, n · Q places each, one group after the other.

    `widths`: Q of each group. `gather` (Σ n · Q,) int64: the row of each place. `scatter` (R,) int64: the place of each
    row. `real` (Σ n · Q, 1) bool, false at padding; None where nothing is padding.
    """

    widths: tuple[int, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None


def place_queries(
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
        # a sequence without scored rows repeats another one's row, whose result is never read
        gathers.append(np.minimum(first + np.minimum(steps, np.maximum(count - 1, 0)), starts[-1] - 1))
        reals.append(steps < count)
        widths.append(width)
    gather = np.concatenate([part.reshape(-1) for part in gathers]).astype(np.int64)
    kept = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    return tuple(widths), [gather, scatter, *([] if kept.all() else [kept[:, None]])]


def padded_queries(widths: tuple[int, ...], tensors: Sequence[Tensor]) -> PaddedQueries:
    """Return what `place_queries` returned, with its arrays as tensors of a device."""
    gather, scatter, *real = tensors
    return PaddedQueries(widths, gather, scatter, real[0] if real else None)
