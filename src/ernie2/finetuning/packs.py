"""Token sequences → the batches of an epoch, and a batch laid end to end into packs.

n tokens of a sequence · P scored positions in it · T tokens of a pack
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch, Targets, end_to_end
from ernie2.batches.order import generator
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.finetuning.encoded import Encoded, runs_within

SCORED = "finetuning"
"""The name of the one task a pack has targets for."""


def batches_of(count: int, batch: int, seed: int, epoch: int) -> Iterator[NDArray[Any]]:
    """The batches of one epoch, (batch,) int64 numbers of sequences, the last one shorter; a pure function of its
    arguments."""
    order = generator(seed, "fine-tuning order", epoch).permutation(count)
    for first in range(0, count, batch):
        yield order[first : first + batch]


def packs_of(sequences: Sequence[Encoded], settings: FineTuningSettings, task_id: int, pad: int) -> list[PackedBatch]:
    """`sequences` in their order as packs of at most `settings.pack_tokens` tokens; at least one sequence a pack."""
    runs = runs_within([len(one.tokens) for one in sequences], settings.pack_tokens)
    return [_pack(sequences[start:end], task_id, pad) for start, end in runs]


def _pack(sequences: Sequence[Encoded], task_id: int, pad: int) -> PackedBatch:
    lengths = [len(one.tokens) for one in sequences]
    starts = np.cumsum([0, *lengths])
    positions = np.concatenate([one.positions + start for one, start in zip(sequences, starts, strict=False)])
    labels = [one.labels for one in sequences if one.labels is not None]
    found = np.concatenate(labels) if labels else np.zeros(len(positions), np.int64)
    return end_to_end(
        [one.tokens for one in sequences],
        [one.segments for one in sequences],
        [task_id] * len(sequences),
        {SCORED: Targets(positions.astype(np.int32), found, len(positions))},
        room=sum(lengths),
        longest=max(lengths),
        pad=pad,
    )
