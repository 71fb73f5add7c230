"""Floating-point operations of a training step, counted from the model's sizes and the real tokens of its packs.

T real tokens · n length of a sequence · L layers · H hidden · F feed-forward width · V word pieces · C classes
P positions a task scores

A multiplication and an addition are two operations; the backward pass takes twice those of the forward pass, hence six
for every weight of a matrix and token:

    matrices of the layers    6 · T · L · (4 H² + 2 H F)
    attention                 12 · L · H · Σ n²            its two products, over real tokens only
    vocabulary head           6 · P · (H² + H V)           at scored positions only
    class heads               6 · P · H C                  and H² more each where the pooled first token is read

Nothing else is counted: neither padding, nor look-ups, norms, dropout, the optimiser, nor layers that are computed
again to save memory. So the share of a device's peak that follows is that of useful work (Chowdhery et al., arXiv
2204.02311, appendix B, call it model FLOPs utilisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ernie2.batches.batch import PackedBatch
from ernie2.model.heads import HeadSpec
from ernie2.settings import EncoderSettings

FORMULA = "6 · T · L · (4 H² + 2 H F) + 12 · L · H · Σ n² + heads at scored positions; padding not counted"
RECURRENT_FORMULA = "6 · T · L · 1.5 · gates · H² + heads at scored positions; padding not counted"

_GATES = {"lstm": 4, "gru": 3}


def formula(settings: EncoderSettings) -> str:
    """What is counted, in one line for a table."""
    return FORMULA if settings.kind == "transformer" else RECURRENT_FORMULA


def step_flops(
    settings: EncoderSettings, vocab_size: int, specs: Mapping[str, HeadSpec], packs: Sequence[PackedBatch]
) -> int:
    """Operations of one training step on `packs`; `specs` are the heads by task name."""
    return sum(pack_flops(settings, vocab_size, specs, pack) for pack in packs)


def pack_flops(settings: EncoderSettings, vocab_size: int, specs: Mapping[str, HeadSpec], pack: PackedBatch) -> int:
    """Operations of forward and backward pass of one pack."""
    scored = {name: targets.count for name, targets in pack.targets.items()}
    heads = sum(6 * count * _head_weights(settings, vocab_size, specs[name]) for name, count in scored.items())
    return encoder_flops(settings, np.diff(pack.starts)) + heads


def encoder_flops(
    settings: EncoderSettings, lengths: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int32]]
) -> int:
    """Operations of the layers on sequences of these lengths. A recurrent layer has no attention; each of its gates is
    two matrices each way: (H + H / 2) · H / 2 weights, twice."""
    sizes = np.asarray(lengths, dtype=np.int64)
    hidden, tokens = settings.hidden, int(sizes.sum())
    if settings.kind != "transformer":
        return 6 * tokens * settings.layers * _GATES[settings.kind] * 3 * hidden * hidden // 2
    matrices = 6 * tokens * (4 * hidden * hidden + 2 * hidden * settings.ffn_width)
    return settings.layers * (matrices + 12 * hidden * int((sizes * sizes).sum()))


def _head_weights(settings: EncoderSettings, vocab_size: int, spec: HeadSpec) -> int:
    """Weights of matrices a scored position goes through after the last layer."""
    hidden = settings.hidden
    if spec.classes is None:
        return hidden * hidden + hidden * vocab_size
    pooled = hidden * hidden if spec.level == "sentence" and spec.pooling == "first" else 0
    return pooled + hidden * spec.classes
