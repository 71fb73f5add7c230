"""Dynamic loss scaling, which keeps small gradients of fp16 from vanishing; the rule is that of the released code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

START, GROWTH, BACKOFF = 102_400.0, 2.0, 0.8
GOOD_STEPS, BAD_STEPS = 100, 2
LEAST = 1.0
"""A loss scaled by no more than this that still overflows is not a matter of scale."""


@dataclass
class LossScale:
    """What a loss is multiplied by before the backward pass, and how many steps in a row went well or badly since.

    × 2 after 100 good steps in a row, × 0.8 after 2 bad ones in a row, never below 1. A step is bad where a gradient is
    not finite; it changes no parameter.
    """

    value: float = START
    good: int = 0
    bad: int = 0

    def update(self, finite: bool) -> None:
        """Adapt to whether the gradients of one step were finite."""
        self.good, self.bad = (self.good + 1, 0) if finite else (0, self.bad + 1)
        if self.good == GOOD_STEPS:
            self.value, self.good = self.value * GROWTH, 0
        if self.bad == BAD_STEPS:
            self.value, self.bad = max(LEAST, self.value * BACKOFF), 0

    def state(self) -> dict[str, Any]:
        """As JSON values, which come back exactly."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.value, self.good, self.bad = state["value"], state["good"], state["bad"]
