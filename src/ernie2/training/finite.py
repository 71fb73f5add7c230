"""Whether a step's loss and gradients are finite: the device knows first, the host asks without holding it up."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Finite:
    """Of summed losses by task and the norm of all gradients (0-d tensors, one device): whether all are finite.

    `bad` is the answer on the device, 0-d float32, 1 where something is not finite: what a fused optimiser takes as
    `found_inf` and then changes nothing. From CUDA the answer travels to the host behind the work queued so far;
    `bool()` waits for it, and asked one step later it waits for nothing. Elsewhere it is `known` at once.
    """

    def __init__(self, losses: Mapping[str, Tensor], grad_norm: Tensor) -> None:
        good = grad_norm.isfinite()
        if losses:
            good = good & torch.stack(list(losses.values())).isfinite().all()
        self.bad = (~good).float()
        self._host = self.bad.to("cpu", non_blocking=True)
        self._arrived: torch.Event | None = None
        if self.bad.device.type == "cuda":
            self._arrived = torch.Event("cuda")
            self._arrived.record()

    @property
    def known(self) -> bool:
        """Whether `bool()` waits for nothing."""
        return self._arrived is None or self._arrived.query()

    def __bool__(self) -> bool:
        """Whether losses and gradients are finite."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return not bool(self._host)
