"""The input side: what one process makes of shards, and how long training waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ernie2.batches.loader import AHEAD, Loader
from ernie2.batches.stream import Lane, Stream
from ernie2.benchmarking.mix import Mix
from ernie2.training.measuring import Taker, TaskSet

_LEAST_STEPS = 3


@dataclass(frozen=True, slots=True)
class LoaderRate:
    """What one process of the loader makes while nothing holds it up: instances and real tokens a second."""

    instances_per_second: float
    tokens_per_second: float
    instance_tokens: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """Training fed by a loader: `share` of the time between 0 and 1 in which it waited for packs, tokens a second."""

    workers: int
    share: float
    tokens_per_second: float
    steps: int


def loader_rate(stream: Stream, sets: Sequence[TaskSet], seconds: float = 2.0) -> LoaderRate:
    """Takes packs from one loader process as fast as they come, for about `seconds` once it runs."""
    lanes = [Lane() for _ in range(stream.lanes)]
    instances = tokens = steps = 0
    with Loader(stream, [Mix(sets)], 1) as loader:
        for step in range(AHEAD + 1):
            _, lanes = loader.take(0, step, lanes)
        began = time.perf_counter()
        while steps < _LEAST_STEPS or time.perf_counter() - began < seconds:
            packs, lanes = loader.take(0, AHEAD + 1 + steps, lanes)
            instances += sum(len(pack.starts) - 1 for pack in packs)
            tokens += sum(pack.real_tokens for pack in packs)
            steps += 1
        taken = time.perf_counter() - began
    return LoaderRate(instances / taken, tokens / taken, tokens / instances)


def waiting(
    taker: Taker,
    stream: Stream,
    sets: Sequence[TaskSet],
    workers: int,
    steps: int,
    advance: Callable[[], None] = lambda: None,
) -> Waiting:
    """Trains `steps` steps of `sets` in turns, fed by `workers` processes (0: by none but this one).

    As many steps as workers are ahead come before the clock starts, so that nothing made in advance flatters it.
    """
    lanes = [Lane() for _ in range(stream.lanes)]
    tokens = 0
    with Loader(stream, [Mix(sets)], workers) as loader:
        before = 0 if workers == 0 else AHEAD + 1
        for step in range(before):
            packs, lanes = loader.take(0, step, lanes)
            taker.train(packs)
        loader.waited, began = 0.0, time.perf_counter()
        for step in range(before, before + steps):
            packs, lanes = loader.take(0, step, lanes)
            taker.train(packs)
            tokens += sum(pack.real_tokens for pack in packs)
            advance()
        taken = time.perf_counter() - began
        waited = loader.waited
    return Waiting(workers, waited / taken, tokens / taken, steps)
