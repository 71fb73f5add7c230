"""Inputs: a packed batch as tensors on a device, with nothing in it that must not be computed.

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


@dataclass(frozen=True, slots=True)
class TaskTargets:
    """What one task scores: `labels[i]` at token `positions[i]`, weighing `weights[i]`.

    `positions` (P,) int64 into the tokens; `labels` (P,) int64 classes or token ids (float32 and (P, 2) int64 for later
    kinds of task); `weights` (P,) float32, 1 for a scored position and 0 for padding, or None where there never is any.
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
    `starts[i] : starts[i + 1]`, and every token lies in a sequence. `lengths`: the same lengths on the host.
    `longest`: no sequence is longer; the static limit of the pack, or the longest sequence where shapes are not static.
    `targets`: by task name, only tasks that score something.
    """

    tokens: Tensor
    positions: Tensor
    segments: Tensor
    task_ids: Tensor
    starts: Tensor
    lengths: tuple[int, ...]
    longest: int
    targets: Mapping[str, TaskTargets]

    @classmethod
    def of(cls, batch: PackedBatch, device: torch.device | str, static: bool) -> Inputs:
        """Moves `batch` to `device`.

        static=False trims the padding tail and the padded targets away: no work for padding (CPUs). static=True keeps
        every shape but the number of sequences, as compiled and captured kernels want; the tail becomes extra
        sequences, each at most `batch.longest` long, that no target refers to.
        """
        device = torch.device(device)
        tokens = len(batch.tokens) if static else batch.real_tokens
        starts = _with_tail(batch.starts, tokens, batch.longest) if static else np.asarray(batch.starts)
        lengths = np.diff(starts)
        return cls(
            tokens=_tensor(batch.tokens[:tokens], np.int64, device),
            positions=_tensor(batch.positions[:tokens], np.int64, device),
            segments=_tensor(batch.segments[:tokens], np.int64, device),
            task_ids=_tensor(batch.task_ids[:tokens], np.int64, device),
            starts=_tensor(starts, np.int32, device),
            lengths=tuple(int(length) for length in lengths),
            longest=batch.longest if static else int(lengths.max(initial=0)),
            targets={
                name: _targets(targets, device, static) for name, targets in batch.targets.items() if targets.count
            },
        )


def _with_tail(starts: NDArray[Any], tokens: int, longest: int) -> NDArray[Any]:
    """Covers the padding tail with sequences: starts [0, 3] of 8 tokens, longest 2 -> [0, 3, 5, 7, 8]."""
    tail = np.arange(int(starts[-1]) + longest, tokens + longest, longest)
    return np.concatenate([starts, np.minimum(tail, tokens)])


def _targets(targets: Targets, device: torch.device, static: bool) -> TaskTargets:
    kept = len(targets.positions) if static else targets.count
    # where shapes are static, a pack that happens to be full gives what the others give
    weights = _tensor(np.arange(kept) < targets.count, np.float32, device) if static else None
    labels = targets.labels[:kept]
    return TaskTargets(
        positions=_tensor(targets.positions[:kept], np.int64, device),
        labels=_tensor(labels, np.float32 if labels.dtype.kind == "f" else np.int64, device),
        weights=weights,
        count=targets.count,
    )


def _tensor(values: NDArray[Any], dtype: type[np.generic], device: torch.device) -> Tensor:
    """A copy of `values` on `device`; towards CUDA from pinned memory, without waiting for the card."""
    tensor = torch.from_numpy(np.array(values, dtype=dtype))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
