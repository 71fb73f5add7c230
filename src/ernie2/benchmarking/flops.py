"""Floating-point operations of a training step, from model sizes and real tokens, and the peak rate of a device.

The classes of layers and heads provide the counts (`flops`, `matrix_weights`): six operations per matrix weight and
token, a multiplication and an addition, and twice as many backwards. Heads count only scored positions.

Not counted: padding, look-ups, norms, dropout, the optimiser, and recomputation with activation checkpointing. The
resulting share of the device's peak is model FLOPs utilisation (Chowdhery et al., arXiv 2204.02311, appendix B).
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
    # part of the device name; TFLOP/s of bf16 or fp16 (tensor cores, no sparsity), and of fp32 without TF32
    ("H200 NVL", 835.5, 60.0),
    ("H200", 989.4, 66.9),
    ("H100 NVL", 835.5, 60.0),
    ("H100 PCIe", 756.0, 51.2),
    ("H100", 989.4, 66.9),
    ("A100", 312.0, 19.5),
)
"""From NVIDIA's data sheets; the first entry contained in the device name applies."""
_PARTITION = re.compile(r"\bMIG\b|-\d+C$")
"""Names of GPU partitions: MIG instances and virtual GPUs."""
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
    """Return the operations of one training step on `packs`; `specs`: heads by task name.

    `all_rows`: count the last layer for all tokens, for models that do not restrict it to scored rows.
    """
    total = 0
    for pack in packs:
        for name, targets in pack.targets.items():
            total += 6 * targets.count * head_class(specs[name]).matrix_weights(settings, specs[name], vocab_size)
        choice = None
        if not all_rows and is_enabled("scored_rows"):
            choice = choose_rows(pack, pack.real_tokens, pack.starts, static=False)
        total += encoder_flops(settings, np.diff(pack.starts), None if choice is None else np.diff(choice.starts))
    return total


def encoder_flops(
    settings: EncoderSettings, lengths: Sequence[int] | NDArray[Any], rows: Sequence[int] | NDArray[Any] | None = None
) -> int:
    """Return the operations of the layers on sequences of these lengths; the last layer computes `rows`, or all."""
    layer = ENCODERS[settings.kind].layer
    sizes = np.asarray(lengths, dtype=np.int64)
    last = sizes if rows is None else np.asarray(rows, dtype=np.int64)
    return (settings.layers - 1) * layer.flops(settings, sizes, sizes) + layer.flops(settings, sizes, last)


@dataclass(frozen=True, slots=True)
class Peak:
    """Peak operations/s of a device, and the source of the figure."""

    flops_per_second: float
    source: str


@cache
def device_peak(device: torch.device, precision: str) -> Peak:
    """Return the data-sheet peak of a GPU in `precision`, else a peak measured once per process."""
    known = known_peak(torch.cuda.get_device_name(device), precision) if device.type == "cuda" else None
    return known or measured_peak(device, precision, 8_192 if device.type == "cuda" else 1_024)


def known_peak(name: str, precision: str) -> Peak | None:
    """Return the data-sheet peak of dense products for GPU `name`; None for partitions and unknown GPUs."""
    for known, half, single in _DATA_SHEETS:
        if re.search(rf"\b{known}\b", name) and not _PARTITION.search(name):
            return Peak((single if precision == "fp32" else half) * _TERA, f"data sheet of {known}, dense {precision}")
    return None


@torch.no_grad()
def measured_peak(device: torch.device, precision: str, side: int) -> Peak:
    """Return the fastest product of two `side` × `side` matrices within one second, at least three tries."""
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
