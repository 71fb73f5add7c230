"""PackedBatch: one pack of sequences laid end to end, with the labels of every task.

T tokens a pack (static) · S sequences · P scored positions of a task, padded to a static cap
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Targets:
    """Labels of one task in one pack: `labels[i]` at token `positions[i]` for i < `count`; the rest is padding.

    `positions` (P,) int32 into the pack's tokens; a sentence-level task scores the first token ([CLS]) of a sequence.
    `labels` (P,) integer classes or token ids (int32 in packs of a data stream), (P,) float32 for regression, or (P, 2)
    integers for spans.
    """

    positions: Array
    labels: Array
    count: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences end to end; tokens after `starts[-1]` are padding.

    `tokens`, `positions`, `segments`, `task_ids`: (T,) int32; `positions` restart at 0 with every sequence.
    `starts` (S + 1,) int32: sequence i is tokens `starts[i] : starts[i + 1]`; `starts[-1]` tokens are real.
    `longest`: the static limit on the length of one sequence (not the longest of this pack).
    `targets`: by task name; a task without scored positions has count 0 or is absent.
    `flat`: one int32 buffer of which all arrays are views, or None; see `flattened`.
    """

    tokens: Array
    positions: Array
    segments: Array
    task_ids: Array
    starts: Array
    longest: int
    targets: Mapping[str, Targets]
    flat: Array | None = field(default=None, init=False, repr=False, compare=False)  # dataclasses.replace drops it

    @property
    def real_tokens(self) -> int:
        """Number of tokens without padding, special tokens included."""
        return int(self.starts[-1])

    def flattened(self) -> PackedBatch:
        """Return this pack in one buffer, `flat` (N,) int32; itself if it has one.

        The buffer holds without gaps: tokens, positions, segments, task_ids, then positions and labels of each task in
        the order of `targets` (float labels by their bits), then `starts`. Only the size of `starts` varies between
        packs of a task set, so the other arrays have the same offsets in all of them.
        """
        if self.flat is not None:
            return self
        layout = self.layout()
        packed = layout.pack(np.empty(layout.size, np.int32))
        for mine, theirs in zip(self._arrays(), packed._arrays(), strict=True):
            theirs[...] = mine
        return packed

    def layout(self) -> Layout:
        """Return the layout of this pack in one buffer."""
        targets = [
            TargetsLayout(name, each.labels.shape, each.labels.dtype.kind == "f", each.count)
            for name, each in self.targets.items()
        ]
        return Layout(len(self.tokens), len(self.starts), self.longest, tuple(targets))

    def _arrays(self) -> list[Array]:
        scored = [array for each in self.targets.values() for array in (each.positions, each.labels)]
        return [self.tokens, self.positions, self.segments, self.task_ids, *scored, self.starts]

    def __reduce__(self) -> tuple[Callable[[Array], PackedBatch], tuple[Array]]:
        """Pickle one buffer and its layout instead of every array."""
        packed = self.flattened()
        assert packed.flat is not None
        return packed.layout().pack, (packed.flat,)


@dataclass(frozen=True, slots=True)
class TargetsLayout:
    """Shape of one task's `labels`, whether they are floats, and how many of them count."""

    name: str
    labels: tuple[int, ...]
    floats: bool
    count: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of a pack's arrays in one buffer: `tokens` (T) of four arrays, `starts` (S + 1), and the tasks' targets."""

    tokens: int
    starts: int
    longest: int
    targets: tuple[TargetsLayout, ...]

    @property
    def sizes(self) -> list[int]:
        """Number of elements of every array, in the order of the buffer."""
        scored = [size for each in self.targets for size in (each.labels[0], int(np.prod(each.labels)))]
        return [*[self.tokens] * 4, *scored, self.starts]

    @property
    def size(self) -> int:
        """Number of elements of the buffer."""
        return sum(self.sizes)

    def pack(self, flat: Array) -> PackedBatch:
        """Return the pack whose arrays are views of `flat` (size,) int32."""
        ends = list(accumulate(self.sizes))
        views = [flat[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]
        targets = {}
        for each, positions, labels in zip(self.targets, views[4:-1:2], views[5:-1:2], strict=True):
            typed = labels.view(np.float32) if each.floats else labels
            targets[each.name] = Targets(positions, typed.reshape(each.labels), each.count)
        tokens, positions, segments, task_ids = views[:4]
        pack = PackedBatch(tokens, positions, segments, task_ids, views[-1], self.longest, targets)
        object.__setattr__(pack, "flat", flat)  # it is frozen
        return pack


def pack_sequences(
    tokens: Sequence[Array],
    segments: Sequence[Array],
    task_ids: Sequence[int] | Array,
    targets: Mapping[str, Targets],
    *,
    size: int,
    longest: int,
    pad: int,
    starts: Array | None = None,
) -> PackedBatch:
    """Lay sequences (n_i,) end to end in a pack of `size` tokens; `targets` have positions in the pack.

    Lengths [3, 1, 2] start at [0, 3, 4, 6]. `starts` (S + 1,): required if an array holds several sequences.
    """
    if starts is None:
        starts = np.cumsum([0, *map(len, tokens)])
    real, lengths = int(starts[-1]), np.diff(starts)
    columns = np.zeros((4, size), np.int32)  # tokens, positions, segments, task ids
    columns[0, real:] = pad
    if real:
        columns[0, :real], columns[2, :real] = np.concatenate(tokens), np.concatenate(segments)
        columns[1, :real] = np.arange(real) - np.repeat(starts[:-1], lengths)
        columns[3, :real] = np.repeat(task_ids, lengths)
    return PackedBatch(
        columns[0], columns[1], columns[2], columns[3], starts.astype(np.int32), longest, targets
    ).flattened()
