"""How many operations a second a device could do at most: from its maker where known, else from matrix products."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch

from ernie2.training.measuring import synchronise

_TERA = 10**12
_KNOWN = (
    # part of the name torch gives, bf16 or fp16 with tensor cores and without sparsity, fp32 without TF32; TFLOP/s
    ("H200 NVL", 835.5, 60.0),
    ("H200", 989.4, 66.9),
    ("H100 NVL", 835.5, 60.0),
    ("H100 PCIe", 756.0, 51.2),
    ("H100", 989.4, 66.9),
    ("A100", 312.0, 19.5),
)
"""NVIDIA's data sheets; the first entry whose name is part of the device's."""
_SIDES = {"cuda": 8_192, "cpu": 1_024}
_SECONDS = 1.0
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second a device does at most, and who says so."""

    flops_per_second: float
    source: str


@cache
def peak_of(device: torch.device, precision: str, side: int | None = None) -> Peak:
    """The known peak of a GPU in `precision`, else the best of matrix products of `side` rows and columns tried now.

    What was tried once in a process holds for all of it.
    """
    if device.type == "cuda":
        known = known_peak(torch.cuda.get_device_name(device), precision)
        if known is not None:
            return known
    return measured_peak(device, precision, side or _SIDES.get(device.type, 1_024))


def known_peak(name: str, precision: str) -> Peak | None:
    """What the data sheet of the GPU called `name` says for dense products; None for one that is not in our table."""
    for part, half, single in _KNOWN:
        if part in name:
            return Peak((single if precision == "fp32" else half) * _TERA, f"data sheet of {part}, dense {precision}")
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
