"""Floating-point operations of a training step, counted from the model's sizes and the real tokens of its packs.

Layers and heads say what they compute (`Layer.flops`, `matrix_weights` of heads), six operations for every weight of a
matrix and token: a multiplication and an addition, and twice those backwards. Heads count at scored positions only.

Nothing else is counted: neither padding, nor look-ups, norms, dropout, the optimiser, nor layers that are computed
again to save memory. So the share of a device's peak that follows is that of useful work (Chowdhery et al., arXiv
2204.02311, appendix B, call it model FLOPs utilisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch
from ernie2.config.settings import EncoderSettings
from ernie2.model.heads import HeadSpec, head_class
from ernie2.model.levers import enabled
from ernie2.model.rnn import ENCODERS
from ernie2.model.scored_rows import choose_rows


def formula(settings: EncoderSettings) -> str:
    """What is counted, in one line for a table.

    T real tokens · L layers · H hidden · F feed-forward width · n length of a sequence
    """
    return ENCODERS[settings.kind].layer.formula(settings)


def step_flops(
    settings: EncoderSettings,
    vocab_size: int,
    specs: Mapping[str, HeadSpec],
    packs: Sequence[PackedBatch],
    *,
    all_rows: bool = False,
) -> int:
    """Operations of one training step on `packs`; `specs` are the heads by task name.

    `all_rows`: count the last layer at all tokens, as a model computes it that does not choose scored rows.
    """
    made = 0
    for pack in packs:
        for name, targets in pack.targets.items():
            made += 6 * targets.count * head_class(specs[name]).matrix_weights(settings, specs[name], vocab_size)
        choice = None
        if not all_rows and enabled("scored_rows"):
            choice = choose_rows(pack, pack.real_tokens, pack.starts, static=False)
        made += encoder_flops(settings, np.diff(pack.starts), None if choice is None else np.diff(choice.starts))
    return made


def encoder_flops(
    settings: EncoderSettings, lengths: Sequence[int] | NDArray[Any], rows: Sequence[int] | NDArray[Any] | None = None
) -> int:
    """Operations of the layers on sequences of these lengths, of which the last layer computes `rows`, or all."""
    layer = ENCODERS[settings.kind].layer
    sizes = np.asarray(lengths, dtype=np.int64)
    last = sizes if rows is None else np.asarray(rows, dtype=np.int64)
    return (settings.layers - 1) * layer.flops(settings, sizes, sizes) + layer.flops(settings, sizes, last)
