"""Floating-point operations of a training step, counted from the model's sizes and the real tokens of its packs.

T real tokens · R scored rows, or T where all are computed · n length of a sequence · r its scored rows
L layers · H hidden · F feed-forward width · V word pieces · C classes
P positions a task scores

A multiplication and an addition are two operations; the backward pass takes twice those of the forward pass, hence six
for every weight of a matrix and token:

    matrices of the layers    6 · T · (L - 1) · (4 H² + 2 H F), and of the last 6 · (T · 2 H² + R · (2 H² + 2 H F))
    attention                 12 · H · ((L - 1) · Σ n² + Σ r n)    its two products, over real tokens only
    vocabulary head           6 · P · (H² + H V)           at scored positions only
    class heads               6 · P · H C                  and H² more each where the pooled first token is read

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
from ernie2.model.heads import HeadSpec
from ernie2.model.levers import enabled
from ernie2.model.scored_rows import choose_rows

FORMULA = (
    "6 · T · L · (4 H² + 2 H F) + 12 · L · H · Σ n² + heads at scored positions, the last layer at scored rows; "
    "padding not counted"
)
RECURRENT_FORMULA = "6 · T · L · 1.5 · gates · H² + heads at scored positions; padding not counted"

_GATES = {"lstm": 4, "gru": 3}


def formula(settings: EncoderSettings) -> str:
    """What is counted, in one line for a table."""
    return FORMULA if settings.kind == "transformer" else RECURRENT_FORMULA


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
    return sum(pack_flops(settings, vocab_size, specs, pack, all_rows=all_rows) for pack in packs)


def pack_flops(
    settings: EncoderSettings,
    vocab_size: int,
    specs: Mapping[str, HeadSpec],
    pack: PackedBatch,
    *,
    all_rows: bool = False,
) -> int:
    """Operations of forward and backward pass of one pack; arguments as in `step_flops`."""
    scored = {name: targets.count for name, targets in pack.targets.items()}
    heads = sum(6 * count * _head_weights(settings, vocab_size, specs[name]) for name, count in scored.items())
    rows = None
    if not all_rows and enabled("scored_rows"):
        choice = choose_rows(pack, pack.real_tokens, pack.starts, static=False)
        rows = None if choice is None else np.diff(choice.starts)
    return encoder_flops(settings, np.diff(pack.starts), rows) + heads


def encoder_flops(
    settings: EncoderSettings, lengths: Sequence[int] | NDArray[Any], rows: Sequence[int] | NDArray[Any] | None = None
) -> int:
    """Operations of the layers on sequences of these lengths, of which the last layer computes so many `rows`, or all.

    A recurrent layer has no attention; each of its gates is two matrices each way: (H + H / 2) · H / 2 weights,
    twice; it computes all rows.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    hidden, tokens = settings.hidden, int(sizes.sum())
    if settings.kind != "transformer":
        return 6 * tokens * settings.layers * _GATES[settings.kind] * 3 * hidden * hidden // 2
    last = sizes if rows is None else np.asarray(rows, dtype=np.int64)
    matrices = 4 * hidden * hidden + 2 * hidden * settings.ffn_width
    full = 6 * tokens * matrices + 12 * hidden * int((sizes * sizes).sum())
    less = 6 * (tokens - int(last.sum())) * (matrices - 2 * hidden * hidden)  # keys and values are of all tokens
    return settings.layers * full - less - 12 * hidden * int(((sizes - last) * sizes).sum())


def _head_weights(settings: EncoderSettings, vocab_size: int, spec: HeadSpec) -> int:
    """Weights of matrices a scored position goes through after the last layer."""
    hidden = settings.hidden
    if spec.classes is None:
        return hidden * hidden + hidden * vocab_size
    pooled = hidden * hidden if spec.level == "sentence" else 0
    return pooled + hidden * spec.classes
