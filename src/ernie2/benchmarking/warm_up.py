"""Warm-up: steps that come before measured ones, until they get no faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from statistics import median
from typing import Protocol

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.mix import MeasuredStep
from ernie2.training.measuring import TaskSet

MIN_STEPS = 24
"""On a CPU the first twenty steps or so are slow: memory that is freed is reused only when the heap has grown."""
WINDOW = 4
SETTLED = 0.98
MAX_STEPS = 64
MAX_SECONDS = 120.0


class Side(Protocol):
    """One way to train on packs, measured by itself or beside others."""

    name: str

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """One optimiser step on the instances of `packs`."""


def warm_up(
    sides: Sequence[Side],
    packs_of: Callable[[TaskSet], Sequence[PackedBatch]],
    sets: Sequence[TaskSet],
    *,
    compiled: bool,
    advance: Callable[[int, int, TaskSet, Sequence[MeasuredStep]], None] = lambda *_: None,
) -> int:
    """Train all `sides` in turns on the same packs of `sets` until none gets faster; return the steps each has taken.

    A compiled model trains every different set once, then until it settles; others train `MIN_STEPS` at least. Sides
    have settled when the median time a token of `WINDOW` steps is above `SETTLED` times that of the `WINDOW` before.
    Ends in any case after `MAX_STEPS` steps or `MAX_SECONDS` a side, once `WINDOW` steps are taken.

    `advance` gets, after every step: its number from 1 on, the least number of steps, its task set, a step a side.
    """
    different = list(dict.fromkeys(sets))
    taken, end = 0, time.monotonic() + MAX_SECONDS * len(sides)
    least = len(different) if compiled else MIN_STEPS

    def seconds_a_token(chosen: TaskSet) -> list[float]:
        nonlocal taken
        packs = packs_of(chosen)
        steps = [side.step(packs) for side in sides]
        taken += 1
        advance(taken, least, chosen, steps)
        return [step.seconds / step.tokens for step in steps]

    for chosen in different if compiled else ():
        seconds_a_token(chosen)
    window = list(islice(cycle(different), WINDOW))
    before = [float("inf")] * len(sides)
    while True:
        now = [median(times) for times in zip(*map(seconds_a_token, window), strict=True)]
        settled = taken >= least and all(b > SETTLED * a for a, b in zip(before, now, strict=True))
        if settled or taken >= MAX_STEPS or time.monotonic() >= end:
            return taken
        before = now
