"""Dropout that costs little on a CPU, where drawing the mask the usual way takes longer than a matrix product.

On a CPU each element is dropped by 16 random bits, four elements a draw; elsewhere, and where a compiler makes the
kernel, torch's own dropout runs. Masks are a function of torch's default generator alone, whatever the number of
threads; `torch.utils.checkpoint` puts that generator back before it computes a layer again, so the masks are the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 1 << 16
_LANES = 4
"""16-bit numbers in one draw of 64 bits."""


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


class _Masked(torch.autograd.Function):
    """values · mask · scale, and the same for the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        levels = min(round(share * _LEVELS), _LEVELS - 1)
        draws = torch.empty(-(-values.numel() // _LANES), dtype=torch.int64).random_(-(1 << 63), None)
        lanes = draws.view(torch.int16)[: values.numel()].view(values.shape)
        mask = lanes >= levels - _LEVELS // 2
        ctx.save_for_backward(mask)  # not an attribute: a layer that is computed again must be able to let it go
        ctx.scale = _LEVELS / (_LEVELS - levels)
        dropped: Tensor = (values * mask).mul_(ctx.scale)
        return dropped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None
