"""Scored rows: the tokens whose last hidden state a head reads, so that the last layer computes no others.

Keys and values of the last layer are needed of all tokens; queries and everything after attention only at these rows.

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
"""Share of a pack's tokens; where more are scored, all rows are computed."""
_STEPS = 64
"""Where shapes are static, the number of rows is a multiple of T / 64, so few sizes occur."""


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Scored rows on the host: `index` (R,) int64 tokens in ascending order, `starts` (S + 1,) int32 the first row of
    each sequence, `places` by task (P,) int64 the row of each scored position.
    """

    index: NDArray[Any]
    starts: NDArray[Any]
    places: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Scored rows on a device: `index`, `starts` and `places` as in `RowChoice`; `host_starts` equals `starts`."""

    index: Tensor
    starts: Tensor
    places: Mapping[str, Tensor]
    host_starts: NDArray[Any]


def choose_rows(batch: PackedBatch, tokens: int, starts: NDArray[Any], static: bool) -> RowChoice | None:
    """Return the rows that the tasks of `batch` score among its first `tokens` tokens, or None for all rows.

    None where nothing is scored or more than 60 % of the tokens are. `starts` (S + 1,) covers all `tokens`. With
    `static`, tokens that no task scores fill the rows up to a multiple of T / 64, and each task has a place for each of
    its padded targets, row 0. Positions [5, 0] of 8 tokens in sequences of 4 -> index [0, 5], starts [0, 1, 2],
    places [1, 0].
    """
    wanted = np.zeros(tokens, dtype=bool)
    for targets in batch.targets.values():
        wanted[targets.positions[: targets.count]] = True
    rows = int(wanted.sum())
    if static:
        step = -(-tokens // _STEPS)
        goal = max(2, -(-rows // step) * step)  # a size of 1 would be compiled on its own
    else:
        goal = rows
    if not rows or goal > _MAX_SHARE * tokens:
        return None
    if goal > rows:
        wanted[np.flatnonzero(~wanted)[rows - goal :]] = True
    before = np.concatenate([[0], np.cumsum(wanted)])  # (T + 1,) rows before each token
    places = {}
    for name, targets in batch.targets.items():
        place = np.zeros(len(targets.positions) if static else targets.count, dtype=np.int64)
        place[: targets.count] = before[targets.positions[: targets.count]]
        places[name] = place
    return RowChoice(np.flatnonzero(wanted), before[starts].astype(np.int32), places)
