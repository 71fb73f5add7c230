"""Fast dropout on a CPU, where drawing the usual mask takes longer than a matrix product.

On a CPU, 16 random bits decide for each element, and a bitwise AND zeroes it. That is several times faster than a
product with a mask of bools. On other devices and in compiled code, torch's dropout is used. Masks depend only on
torch's default generator, not on the number of threads. `torch.utils.checkpoint` restores that generator, so a
recomputed layer gets the same masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.model.optimizations import is_enabled

_LEVELS = 1 << 16
_NUMBERS_PER_DRAW = 4
"""16-bit numbers per draw of 64 bits."""
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Element size in bytes -> integer dtype of that size."""


class Dropout(nn.Module):
    """Dropout with probability `share` in training, with kept elements scaled up; the identity in evaluation.

    On a CPU `share` is rounded to a multiple of 1/65,536. The scale uses the rounded value: the expectation is exact.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """values (…), any float dtype -> same shape and dtype."""
        if not self.training or self.share == 0.0:
            return values
        if values.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(values, self.share)
        dropped: Tensor = _MaskedDropout.apply(values, self.share)  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        """Return the share, for printed models."""
        return str(self.share)


def draw_keep_mask(shape: Sequence[int], share: float) -> Tensor:
    """Return a random mask: int16 of this shape, all bits set for kept elements, 0 for dropped ones.

    One number from torch's default generator seeds NumPy's SFC64. Its raw bits are twice as fast as torch's and the
    same in every version.
    """
    highest = _levels(share) - _LEVELS // 2 - 1  # the largest 16-bit number that is dropped
    count = math.prod(shape)
    if highest < -_LEVELS // 2:
        return torch.full(tuple(shape), -1, dtype=torch.int16)
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw(-(-count // _NUMBERS_PER_DRAW))
    numbers = torch.from_numpy(draws.view(np.int16)[:count]).view(tuple(shape))
    return torch.rsub(numbers.clamp_(highest, highest + 1), highest)


def apply_keep_mask(values: Tensor, mask: Tensor) -> Tensor:
    """values and their mask from `draw_keep_mask` -> a copy with dropped elements set to 0."""
    if not is_enabled("dropout_bit_masks"):
        return values * mask.bool()
    bits = _BITS[values.element_size()]
    return (values.view(bits) & mask.to(bits)).view(values.dtype)


def keep_scale(share: float) -> float:
    """Return the factor for kept elements: 1 / (1 - rounded share)."""
    return _LEVELS / (_LEVELS - _levels(share))


def _levels(share: float) -> int:
    """Return how many of the 65,536 16-bit numbers drop an element."""
    return min(round(share * _LEVELS), _LEVELS - 1)


class _MaskedDropout(torch.autograd.Function):
    """values · mask · scale, forward and backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        mask = draw_keep_mask(values.shape, share)
        ctx.save_for_backward(mask)  # not an attribute, so that activation checkpointing can free it
        ctx.scale = keep_scale(share)
        return apply_keep_mask(values, mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return apply_keep_mask(gradient, mask).mul_(ctx.scale), None
