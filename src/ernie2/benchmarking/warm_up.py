"""Warm-up: train steps until they get no faster, before measuring."""

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
"""On a CPU the first twenty or so steps are slow: freed memory is reused only after the heap has grown."""
WINDOW = 4
SETTLED = 0.98
MAX_STEPS = 64
MAX_SECONDS = 120.0


class Side(Protocol):
    """One implementation of the training step in a comparison."""

    name: str

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """Train one optimiser step on the instances of `packs`."""


def warm_up(
    sides: Sequence[Side],
    packs_of: Callable[[TaskSet], Sequence[PackedBatch]],
    sets: Sequence[TaskSet],
    *,
    compiled: bool,
    advance: Callable[[int, int, TaskSet, Sequence[MeasuredStep]], None] = lambda *_: None,
) -> int:
    """Train all `sides` alternately on the same packs of `sets` until none gets faster; return the steps per side.

    A compiled model first trains every distinct set once; others train at least `MIN_STEPS`. A side has settled if the
    median time per token of `WINDOW` steps is above `SETTLED` times that of the previous `WINDOW`. The warm-up ends at
    the latest after `MAX_STEPS` steps or `MAX_SECONDS` per side, checked every `WINDOW` steps.

    Calls `advance` after every step: its number from 1, the minimum of steps, its task set, one step per side.
    """
    distinct = list(dict.fromkeys(sets))
    done, end = 0, time.monotonic() + MAX_SECONDS * len(sides)
    least = len(distinct) if compiled else MIN_STEPS

    def seconds_a_token(chosen: TaskSet) -> list[float]:
        nonlocal done
        packs = packs_of(chosen)
        steps = [side.step(packs) for side in sides]
        done += 1
        advance(done, least, chosen, steps)
        return [step.seconds / step.tokens for step in steps]

    for chosen in distinct if compiled else ():
        seconds_a_token(chosen)
    window = list(islice(cycle(distinct), WINDOW))
    before = [float("inf")] * len(sides)
    while True:
        now = [median(times) for times in zip(*map(seconds_a_token, window), strict=True)]
        settled = done >= least and all(b > SETTLED * a for a, b in zip(before, now, strict=True))
        if settled or done >= MAX_STEPS or time.monotonic() >= end:
            return done
        before = now
