"""Packing: instances → one PackedBatch of static shape, without truncating or dropping any."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch, Targets, pack_sequences
from ernie2.tasks.base import Labels, SentenceTask, Task, TokenTask
from ernie2.tasks.blocks import Block
from ernie2.tasks.instances import Instance

Array = NDArray[Any]

TOKENS_PER_SEQUENCE = 16
"""A pack has at most pack_tokens / 16 sequences, a static size for sentence-level labels that text does not reach."""


@dataclass(frozen=True)
class Caps:
    """Static sizes of a pack: tokens, longest sequence, sequences, and scored positions by task."""

    tokens: int
    longest: int
    sequences: int
    scored: Mapping[str, int]

    @property
    def buffer_size(self) -> int:
        """Maximum elements of a pack in one buffer: tokens, positions, segments, task ids, starts and all targets."""
        return 4 * self.tokens + self.sequences + 1 + 2 * sum(self.scored.values())

    @staticmethod
    def of(pack_tokens: int, sequence_tokens: int, tasks: Sequence[Task]) -> Caps:
        """Return the caps for these tasks; a single sequence always fits."""
        sequences = max(1, pack_tokens // TOKENS_PER_SEQUENCE)
        scored = {}
        for task in tasks:
            if isinstance(task, SentenceTask):
                scored[task.name] = sequences
            elif isinstance(task, TokenTask):
                scored[task.name] = min(
                    pack_tokens, max(sequence_tokens, math.ceil(task.max_scored_share * pack_tokens))
                )
        return Caps(pack_tokens, sequence_tokens, sequences, scored)


def empty_pack(caps: Caps, cls: int, sep: int) -> PackedBatch:
    """Return a pack of one empty sequence without targets, for ranks with fewer packs than others."""
    return _pack(caps, 0, [np.array([cls, sep])], [np.zeros(2, np.int64)], [0], {})


def pack_block(
    caps: Caps, pad: int, block: Block, inputs: Array, labels: Mapping[str, Labels], task_id: int
) -> PackedBatch:
    """Pack as many first sequences of `block` as fit; the same pack as `Packer` builds from these instances.

    `inputs` (n,) and `labels` are those of the block; every sequence has the same `task_id`.
    """
    starts = block.starts
    ends = {name: labels[name].positions.searchsorted(starts) for name in caps.scored if name in labels}  # (s + 1,)
    fitting = [int(starts.searchsorted(caps.tokens, side="right")) - 1, caps.sequences]
    fitting += [int(end.searchsorted(caps.scored[name], side="right")) - 1 for name, end in ends.items()]
    count = min(fitting)
    real = int(starts[count])
    scored = {
        name: Labels(labels[name].positions[: end[count]], labels[name].targets[: end[count]])
        for name, end in ends.items()
    }
    segments, ids = block.sequence.segment[:real], np.full(count, task_id)
    return _pack(caps, pad, [inputs[:real]], [segments], ids, scored, starts[: count + 1])


def _pack(
    caps: Caps,
    pad: int,
    tokens: Sequence[Array],
    segments: Sequence[Array],
    task_ids: Sequence[int] | Array,
    labels: Mapping[str, Labels],
    starts: Array | None = None,
) -> PackedBatch:
    """`pack_sequences` with labels padded to the caps, without tasks that score nothing."""
    targets = {}
    for name, scored in labels.items():
        if count := len(scored.positions):
            positions = np.zeros(caps.scored[name], np.int32)
            positions[:count] = scored.positions
            kind = np.float32 if scored.targets.dtype.kind == "f" else np.int32
            padded = np.zeros((caps.scored[name], *scored.targets.shape[1:]), kind)
            padded[:count] = scored.targets
            targets[name] = Targets(positions, padded, count)
    sizes = {"size": caps.tokens, "longest": caps.longest, "pad": pad}
    return pack_sequences(tokens, segments, task_ids, targets, starts=starts, **sizes)


class Packer:
    """Collects instances until one does not fit, then builds the pack."""

    def __init__(self, caps: Caps, pad: int) -> None:
        self._caps = caps
        self._pad = pad
        self._instances: list[tuple[Instance, int]] = []
        self._tokens = 0
        self._scored = dict.fromkeys(caps.scored, 0)

    def add(self, instance: Instance, task_id: int) -> bool:
        """Add `instance` under `task_id`; return False if it would exceed a cap."""
        if len(self._instances) == self._caps.sequences or self._tokens + len(instance) > self._caps.tokens:
            return False
        scored = {name: self._scored[name] + len(labels.positions) for name, labels in instance.labels.items()}
        if any(count > self._caps.scored[name] for name, count in scored.items()):
            return False
        self._instances.append((instance, task_id))
        self._tokens += len(instance)
        self._scored.update(scored)
        return True

    def pack(self) -> PackedBatch:
        """Build the pack; positions of labels become positions in the pack."""
        instances, ids = [each for each, _ in self._instances], [task_id for _, task_id in self._instances]
        starts = np.cumsum([0, *map(len, instances)])
        scored = {}
        for name, count in self._scored.items():
            if count:
                task_labels = [
                    (start, each.labels[name])
                    for start, each in zip(starts, instances, strict=False)
                    if name in each.labels
                ]
                positions = np.concatenate([labels.positions + start for start, labels in task_labels])
                scored[name] = Labels(positions, np.concatenate([labels.targets for _, labels in task_labels]))
        inputs, segments = [each.inputs for each in instances], [each.segment for each in instances]
        return _pack(self._caps, self._pad, inputs, segments, ids, scored)
