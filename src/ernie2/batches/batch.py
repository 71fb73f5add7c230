"""PackedBatch: one pack of sequences laid end to end, with the labels every task scores in it.

T tokens a pack (static) · S sequences · P scored positions of a task, padded to a static cap
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
