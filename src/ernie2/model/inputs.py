"""A packed batch as tensors on a device.

T tokens · S sequences · P scored positions of a task
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ernie2.batches.batch import PackedBatch, Targets
from ernie2.model.scored_rows import ScoredRows, choose_rows
from ernie2.model.transfer import to_device


@dataclass(frozen=True, slots=True)
class TaskTargets:
    """Targets of one task: `labels[i]` at token `positions[i]`, with weight `weights[i]`.

    `positions` (P,) int64: indices of tokens. `labels` (P,) int64: classes or token ids; fine-tuning also uses float32
    and (P, 2) int64. `weights` (P,) float32: 1 for a scored position and 0 for padding; None if there is no padding.
    `count`: number of scored positions, known on the host.
    """

    positions: Tensor
    labels: Tensor
    weights: Tensor | None
    count: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """One pack, ready for the encoder.

    `tokens`, `positions`, `segments`, `task_ids`: (T,) int64. `starts` (S + 1,) int32: sequence i is tokens
    `starts[i] : starts[i + 1]`, and every token belongs to a sequence. `lengths`: the sequence lengths, on the host.
    `longest`: upper bound of `lengths`; with static shapes the limit of the pack, otherwise the longest sequence.
    `targets`: by task name, only tasks with scored positions. `rows`: the scored tokens, None if most are scored.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    task_ids: Tensor
    starts: Tensor
    lengths: tuple[int, ...]
    longest: int
    targets: Mapping[str, TaskTargets]
    rows: ScoredRows | None = None

    @property
    def ids(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs of the embeddings: tokens, segments, positions and task ids, each (T,) int64."""
        return self.tokens, self.segments, self.positions, self.task_ids

    @classmethod
    def from_batch(cls, batch: PackedBatch, device: torch.device | str, static: bool) -> Inputs:
        """Move `batch` to `device`; to CUDA in one asynchronous copy.

        static=False removes the padding tail and padded targets, so nothing is computed for padding (CPUs).
        static=True keeps every shape except the number of sequences, for compiled and captured kernels. The tail
        becomes extra sequences, each at most `batch.longest` long, without targets.
        """
        batch = batch.flattened()
        assert batch.flat is not None
        tokens = len(batch.tokens) if static else batch.real_tokens
        starts = _cover_padding(batch.starts, tokens, batch.longest) if static else batch.starts.copy()
        # with static shapes a full pack must have the same tensors as the others
        weights = [_weights(each) for each in batch.targets.values()] if static else []
        choice = choose_rows(batch, tokens, starts, static)
        row_arrays = [] if choice is None else [choice.index, choice.starts, *choice.places.values()]
        flat, on_device, *others = to_device([batch.flat, starts, *weights, *row_arrays], device)
        weight_tensors, row_tensors = others[: len(weights)], others[len(weights) :]
        rows = None
        if choice is not None:
            index, row_starts, *places = row_tensors
            rows = ScoredRows(index, row_starts, dict(zip(choice.places, places, strict=True)), choice.starts)
            if static:  # a compiled layer serves any number of rows and sequences
                torch._dynamo.mark_dynamic(index, 0)
                torch._dynamo.mark_dynamic(row_starts, 0)
        sizes = batch.layout().sizes
        narrow, wide = (
            torch.split(flat, sizes),
            torch.split(flat.long(), sizes),
        )  # (N,) -> all arrays, as int32 and as int64
        targets = {}
        for place, (name, each) in enumerate(batch.targets.items()):
            length = len(each.positions) if static else each.count
            positions, at = wide[4 + 2 * place], 5 + 2 * place
            labels = narrow[at].view(torch.float32) if each.labels.dtype.kind == "f" else wide[at]
            targets[name] = TaskTargets(
                positions=positions[:length],
                labels=labels.view(each.labels.shape)[:length],
                weights=weight_tensors[place] if static else None,
                count=each.count,
            )
        lengths = np.diff(starts)
        return cls(
            tokens=wide[0][:tokens],
            positions=wide[1][:tokens],
            segments=wide[2][:tokens],
            task_ids=wide[3][:tokens],
            starts=on_device,
            lengths=tuple(lengths.tolist()),
            longest=batch.longest if static else int(lengths.max(initial=0)),
            targets={name: each for name, each in targets.items() if each.count},
            rows=rows,
        )


def _cover_padding(starts: NDArray[Any], tokens: int, longest: int) -> NDArray[Any]:
    """Cover the padding tail with sequences: starts [0, 3] of 8 tokens, longest 2 -> [0, 3, 5, 7, 8]."""
    tail = np.arange(int(starts[-1]) + longest, tokens + longest, longest)
    return np.concatenate([starts, np.minimum(tail, tokens)]).astype(np.int32)


def _weights(targets: Targets) -> NDArray[Any]:
    return (np.arange(len(targets.positions)) < targets.count).astype(np.float32)
