"""Scored rows: the tokens whose last hidden state a head reads; the last layer computes only these.

The last layer needs keys and values of all tokens, but queries and everything after attention only for scored rows.

T tokens in the pack · S sequences · R rows · P scored positions of a task
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ernie2.batches.batch import PackedBatch

_MAX_SHARE = 0.6
"""Share of a pack's tokens above which all rows are computed."""
_STEPS = 64
"""With static shapes the number of rows is a multiple of T / 64, so that there are few sizes."""


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Scored rows on the host.

    `index` (R,) int64: tokens in ascending order. `starts` (S + 1,) int32: the first row of each sequence. `places`: by
    task, (P,) int64, the row of each scored position.
    """

    index: NDArray[Any]
    starts: NDArray[Any]
    places: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scored rows on a device: `index`, `starts`, `places` as in `RowChoice`; `host_starts`: `starts` on the host."""

    index: Tensor
    starts: Tensor
    places: Mapping[str, Tensor]
    host_starts: NDArray[Any]


def choose_rows(batch: PackedBatch, tokens: int, starts: NDArray[Any], static: bool) -> RowChoice | None:
    """Return the rows scored by the tasks of `batch` among its first `tokens` tokens, or None for all rows.

    None if nothing is scored or more than 60 % of the tokens are. `starts` (S + 1,) covers all `tokens`. With `static`,
    unscored tokens fill the rows up to a multiple of T / 64, and the places of padded targets are 0. Positions [5, 0]
    of 8 tokens in sequences of 4 -> index [0, 5], starts [0, 1, 2], places [1, 0].
    """
    is_scored = np.zeros(tokens, dtype=bool)
    for targets in batch.targets.values():
        is_scored[targets.positions[: targets.count]] = True
    rows = int(is_scored.sum())
    if static:
        step = -(-tokens // _STEPS)
        padded_rows = max(2, -(-rows // step) * step)  # torch compiles a separate graph for size 1
    else:
        padded_rows = rows
    if not rows or padded_rows > _MAX_SHARE * tokens:
        return None
    if padded_rows > rows:
        is_scored[np.flatnonzero(~is_scored)[rows - padded_rows :]] = True
    before = np.concatenate([[0], np.cumsum(is_scored)])  # (T + 1,) rows before each token
    places = {}
    for name, targets in batch.targets.items():
        place = np.zeros(len(targets.positions) if static else targets.count, dtype=np.int64)
        place[: targets.count] = before[targets.positions[: targets.count]]
        places[name] = place
    return RowChoice(np.flatnonzero(is_scored), before[starts].astype(np.int32), places)
