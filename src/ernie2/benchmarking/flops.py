"""Floating-point operations: those of a training step, by the model's sizes and its real tokens, and a device's peak.

Layers and heads say what they compute (`flops`, `matrix_weights` of their classes): six operations for every weight
of a matrix and token: a multiplication and an addition, and twice those backwards. Heads count at scored positions.

Nothing else is counted: neither padding, nor look-ups, norms, dropout, the optimiser, nor layers that are computed
again to save memory. So the share of a device's peak that follows is that of useful work (Chowdhery et al., arXiv
2204.02311, appendix B, call it model FLOPs utilisation).
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch
from ernie2.config.settings import EncoderSettings
from ernie2.model.encoders import ENCODERS
from ernie2.model.heads import HeadSpec, head_class
from ernie2.model.optimizations import is_enabled
from ernie2.model.scored_rows import choose_rows
from ernie2.training.measuring import synchronise

_TERA = 10**12
_DATA_SHEETS = (
    # words of the name torch gives, bf16 or fp16 with tensor cores and without sparsity, fp32 without TF32; TFLOP/s
    ("H200 NVL", 835.5, 60.0),
    ("H200", 989.4, 66.9),
    ("H100 NVL", 835.5, 60.0),
    ("H100 PCIe", 756.0, 51.2),
    ("H100", 989.4, 66.9),
    ("A100", 312.0, 19.5),
)
"""NVIDIA's data sheets; the first entry whose words are in the device's name."""
_PARTITION = re.compile(r"\bMIG\b|-\d+C$")
"""Names of a part of a card: a MIG instance, a virtual GPU."""
_SECONDS = 1.0
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


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
        if not all_rows and is_enabled("scored_rows"):
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


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second a device does at most, and who says so."""

    flops_per_second: float
    source: str


@cache
def device_peak(device: torch.device, precision: str) -> Peak:
    """The known peak of a GPU in `precision`, else the best of matrix products tried now, once in a process."""
    known = known_peak(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    return known or measured_peak(device, precision, 8_192 if device.type == "cuda" else 1_024)


def known_peak(name: str, precision: str) -> Peak | None:
    """What the data sheet of the GPU called `name` says for dense products; None for a slice of one, or an unknown."""
    for known, half, single in _DATA_SHEETS:
        if re.search(rf"\b{known}\b", name) and not _PARTITION.search(name):
            return Peak((single if precision == "fp32" else half) * _TERA, f"data sheet of {known}, dense {precision}")
    return None


@torch.no_grad()
def measured_peak(device: torch.device, precision: str, side: int) -> Peak:
    """The fastest of the products of two `side` × `side` matrices that fit into a second; three at least."""
    left, right = (torch.randn(side, side, device=device).to(_DTYPES[precision]) for _ in range(2))
    left @ right
    best, began, tried = float("inf"), time.perf_counter(), 0
    while tried < 3 or time.perf_counter() - began < _SECONDS:
        synchronise(device)
        at = time.perf_counter()
        left @ right
        synchronise(device)
        best = min(best, time.perf_counter() - at)
        tried += 1
    return Peak(2 * side**3 / best, f"measured here: the best of {tried} products of {side:,}² matrices in {precision}")
