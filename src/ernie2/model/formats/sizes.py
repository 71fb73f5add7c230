"""Checks of what a checkpoint says of itself against the numbers it holds, before memory is taken for a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model.heads import HeadSpec

_FACTOR, _SPARE = 4, 16_000_000
"""A model may have this many times the file's numbers, and so many more: tables of task ids and heads may be lacking,
and a recurrent layer has about a third of the numbers of the Transformer layer it is counted as."""


def check_size(
    settings: EncoderSettings, vocab_size: int, heads: Iterable[HeadSpec], tensors: Iterable[Tensor], where: str
) -> None:
    """Raise `CheckpointError` where the configuration describes a model far larger than its file of weights."""
    width = settings.hidden
    rows = vocab_size + settings.position_rows + settings.segment_types + settings.task_ids
    outputs = sum(width if head.classes is None else head.classes for head in heads)
    described = settings.parameters + width * (vocab_size + width + outputs)
    storages = [(one.untyped_storage(), one.dtype.itemsize) for one in tensors]  # tensors may share one
    there = sum({storage.data_ptr(): storage.nbytes() // size for storage, size in storages}.values())
    if described > _FACTOR * there + _SPARE:
        raise CheckpointError(
            f"{where} describes a model of {described:,} numbers (hidden {width:,}, layers {settings.layers:,}, ffn "
            f"{settings.ffn_width:,}, {rows:,} rows of tables, {outputs:,} outputs of heads), but its weights have "
            f"{there:,}. Take the configuration that belongs to them."
        )


def check_numbers(name: str, tensor: Tensor, where: str) -> None:
    """Raise `CheckpointError`, naming the tensor, for weights that are not floating-point or not all finite."""
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {name} holds {kind} numbers, so it is quantised or no weight; save it as floating-point numbers."
        )
    finite = torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float())
    if bad := int(tensor.numel() - finite.sum()):
        raise CheckpointError(
            f"{where}: {bad:,} of the {tensor.numel():,} numbers of {name} are not finite; the file is damaged or its "
            "training diverged. Take another checkpoint."
        )
