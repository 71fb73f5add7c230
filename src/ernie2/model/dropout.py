"""Dropout that costs little on a CPU, where drawing the mask the usual way takes longer than a matrix product.

On a CPU each element is dropped by 16 random bits, and zeroed by an AND of its bits, which is several times faster than
a product with a mask of bools. Elsewhere, and where a compiler makes the kernel, torch's own dropout runs. Masks are a
function of torch's default generator alone, whatever the number of threads; `torch.utils.checkpoint` puts that
generator back before it computes a layer again, so the masks are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.model.levers import enabled

_LEVELS = 1 << 16
_LANES = 4
"""16-bit numbers in one draw of 64 bits."""
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an element -> integers of that size."""


class Dropout(nn.Module):
    """Zeroes the share `share` of elements in training and scales the rest up; the identity otherwise.

    On a CPU the share is rounded to a multiple of 1/65,536 and the scale is that of the rounded share, so the expected
    value is exact.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """values, any shape and float dtype -> the same shape and dtype."""
        if not self.training or self.share == 0.0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(values, self.share)
        dropped: Tensor = _Masked.apply(values, self.share)  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        """The share, for printed models."""
        return str(self.share)


def kept_bits(shape: Sequence[int], share: float) -> Tensor:
    """Draw which elements are kept: int16 of this shape, all bits set where kept, 0 where dropped.

    One number from torch's default generator seeds the draws. They are NumPy's raw SFC64 bits: twice as fast as torch's
    own, and the same in every version.
    """
    highest = _levels(share) - _LEVELS // 2 - 1  # the largest 16-bit number that is dropped
    count = math.prod(shape)
    if highest < -_LEVELS // 2:
        return torch.full(tuple(shape), -1, dtype=torch.int16)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw(-(-count // _LANES))
    lanes = torch.from_numpy(draws.view(np.int16)[:count]).view(tuple(shape))
    return torch.rsub(lanes.clamp_(highest, highest + 1), highest)


def zeroed(values: Tensor, kept: Tensor) -> Tensor:
    """values, and int16 of their shape from `kept_bits` -> a copy of the values, 0 where they are dropped."""
    if not enabled("bit_masks"):
        return values * kept.bool()
    bits = _BITS[values.element_size()]
    return (values.view(bits) & kept.to(bits)).view(values.dtype)


def scale_of(share: float) -> float:
    """What elements that are kept are multiplied with: 1 / (1 - the rounded share)."""
    return _LEVELS / (_LEVELS - _levels(share))


def _levels(share: float) -> int:
    """How many of the 65,536 numbers of 16 bits drop an element."""
    return min(round(share * _LEVELS), _LEVELS - 1)


class _Masked(torch.autograd.Function):
    """Values that are kept · scale, and the same for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        kept = kept_bits(values.shape, share)
        ctx.save_for_backward(kept)  # not an attribute: a layer that is computed again must be able to let it go
        ctx.scale = scale_of(share)
        return zeroed(values, kept).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return zeroed(gradient, kept).mul_(ctx.scale), None
