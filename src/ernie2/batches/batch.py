"""PackedBatch: one pack of sequences laid end to end, with the labels every task scores in it.

T tokens a pack (static) · S sequences · P scored positions of a task, padded to a static cap
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """What one task scores in one pack: `labels[i]` at token `positions[i]` for i < `count`; the rest is padding.

    `positions` (P,) int32 into the pack's tokens; a sentence-level task scores the first token ([CLS]) of a sequence.
    `labels` (P,) int64 classes or token ids, (P,) float32 for regression, or (P, 2) int64 for spans.
    """

    positions: Array
    labels: Array
    count: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences end to end; the tail after `starts[-1]` is padding that weighs nothing.

    `tokens`, `positions`, `segments`, `task_ids`: (T,) int32; `positions` restart at 0 with every sequence.
    `starts` (S + 1,) int32: sequence i is tokens `starts[i] : starts[i + 1]`; `starts[-1]` tokens are real.
    `longest`: the static limit on the length of one sequence (not the longest of this pack).
    `targets`: by task name; a task that scores nothing here may be present with count 0 or absent.
    """

    tokens: Array
    positions: Array
    segments: Array
    task_ids: Array
    starts: Array
    longest: int
    targets: Mapping[str, Targets]

    @property
    def real_tokens(self) -> int:
        """Tokens that belong to a sequence, special tokens included."""
        return int(self.starts[-1])


def end_to_end(
    tokens: Sequence[Array],
    segments: Sequence[Array],
    task_ids: Sequence[int],
    targets: Mapping[str, Targets],
    *,
    room: int,
    longest: int,
    pad: int,
) -> PackedBatch:
    """Lays sequences (n_i,) end to end into a pack of `room` tokens; `targets` already hold positions in the pack.

    Lengths [3, 1, 2] start at [0, 3, 4, 6].
    """
    lengths = np.array([len(sequence) for sequence in tokens], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    real = int(starts[-1])
    laid = np.full(room, pad, np.int32)
    positions, segment_types, rows = (np.zeros(room, np.int32) for _ in range(3))
    if real:
        laid[:real] = np.concatenate(tokens)
        positions[:real] = np.arange(real) - np.repeat(starts[:-1], lengths)
        segment_types[:real] = np.concatenate(segments)
        rows[:real] = np.repeat(task_ids, lengths)
    return PackedBatch(laid, positions, segment_types, rows, starts, longest, targets)
