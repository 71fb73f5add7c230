"""Steps that are not finite: told, counted, and too many of them in a row end the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ernie2.batches.batch import PackedBatch
from ernie2.batches.stream import Lane
from ernie2.console import say
from ernie2.training.state import Position
from ernie2.training.step import LEAST, LossScale, StepResult

_LANES = 4
"""So many lanes are named in a message; batch.json holds all."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken: its number from 1, stage from 0, task set with its host, packs by their number in the step
    (on this rank), the lanes they came from, tokens over all ranks, rate, and result.
    """

    step: int
    stage: int
    host: str
    active: Sequence[str]
    packs: Mapping[int, PackedBatch]
    lanes: Mapping[int, Lane]
    tokens: int
    rate: float
    result: StepResult

    @property
    def overflow(self) -> bool:
        """Whether losses are finite and a gradient is not: in fp16 a matter of scale."""
        return self.result.skipped and not self._bad_losses()

    @property
    def told(self) -> str:
        """What is not finite, in words."""
        bad = self._bad_losses()
        return f"the loss of {', '.join(bad)} is not finite" if bad else "a gradient is not finite"

    @property
    def where(self) -> str:
        """Step, stage, task set and the documents its lanes stood at, in words."""
        shown = [f"lane {number} {_read(lane, self.host)}" for number, lane in sorted(self.lanes.items())]
        more = f" and {len(shown) - _LANES} more" if len(shown) > _LANES else ""
        read = ", ".join(shown[:_LANES]) + more
        return f"step {self.step:,} of stage {self.stage + 1} ({', '.join(self.active)}; {read})"

    def facts(self) -> dict[str, Any]:
        """The same as JSON values; figures that are not finite as text."""
        return {
            "step": self.step,
            "stage": self.stage,
            "tasks": list(self.active),
            "lanes": {str(number): lane.state() for number, lane in self.lanes.items()},
            "lr": self.rate,
            "grad_norm": str(float(self.result.grad_norm)),
            "losses": {name: str(float(loss)) for name, loss in self.result.losses.items()},
            "counts": dict(self.result.counts),
        }

    def _bad_losses(self) -> list[str]:
        return [name for name, loss in self.result.losses.items() if not math.isfinite(float(loss))]


def judge(taken: Taken, at: Position, scale: LossScale | None, most: int) -> str | None:
    """Takes in how a step went, in `at.skipped` and `at.bad_steps`; returns why the run must end, if it must.

    That is where it is the last of `most` bad steps in a row. In fp16 (`scale`) a gradient that overflows beside finite
    losses is a matter of scale and no bad step, as long as the scale can still shrink.
    """
    if not taken.result.skipped:
        at.bad_steps = 0
        return None
    at.skipped += 1
    if scale is not None and taken.overflow:
        if scale.value > LEAST:
            return None
        return f"step {taken.step:,}: gradients overflow in fp16 even where the loss is not scaled up."
    at.bad_steps += 1
    say(f"Step {taken.step:,} changed nothing: {taken.told}.")
    if at.bad_steps < most:
        return None
    return (
        f"{taken.where}: {taken.told}, the last of {at.bad_steps} such steps in a row, none of which changed anything."
    )


def _read(lane: Lane, host: str) -> str:
    """Where the host of a step stood in a lane: "at document 12 of text"."""
    cursor = lane.cursors.get(host)
    at = [] if cursor is None else [f"document {document} of {name}" for name, (document, _) in cursor.corpora.items()]
    return "at " + ", ".join(at) if at else "at its start"
