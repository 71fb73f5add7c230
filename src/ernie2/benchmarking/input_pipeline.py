"""The input side: what one process of the loader makes of shards, and how long training waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ernie2.batches.loader import AHEAD, Loader
from ernie2.batches.stream import Lane, Stream
from ernie2.benchmarking.mix import RepeatingPlan
from ernie2.training.measuring import Taker, TaskSet
from ernie2.training.step_inputs import loader_workers

_MIN_STEPS = 3


def measure_input_pipeline(
    taker: Taker,
    sets: Sequence[TaskSet],
    steps: int,
    seconds: float = 2.0,
    advance: Callable[[], None] = lambda: None,
    note: Callable[[str, Mapping[str, Any]], None] = lambda *_: None,
) -> dict[str, Any]:
    """One loader process alone, then training fed by none and by as many as a run has (one where it has none).

    Takes about `seconds`, then `steps` steps each way. `note` is given each measurement as soon as it is made.
    """
    trainer = taker.trainer
    usual = loader_workers(trainer.settings.workers, taker.device, trainer.stream.lanes, trainer.plans)
    alone = loader_rate(trainer.stream, sets, seconds)
    note("one_process", alone)
    fed = []
    for workers in (0, usual or 1):
        fed.append(measure_loader_wait(taker, sets, workers, steps, advance))
        note("waiting", fed[-1])
    return {"one_process": alone, "default_workers": usual, "waiting": fed}


def loader_rate(stream: Stream, sets: Sequence[TaskSet], seconds: float = 2.0) -> dict[str, float]:
    """Instances and real tokens a second of one unhindered loader process, in about `seconds` once it runs."""
    lanes = [Lane() for _ in range(stream.lanes)]
    instances = tokens = steps = 0
    with Loader(stream, [RepeatingPlan(sets)], 1) as loader:
        for step in range(AHEAD + 1):
            _, lanes = loader.take(0, step, lanes)
        began = time.perf_counter()
        while steps < _MIN_STEPS or time.perf_counter() - began < seconds:
            packs, lanes = loader.take(0, AHEAD + 1 + steps, lanes)
            instances += sum(len(pack.starts) - 1 for pack in packs)
            tokens += sum(pack.real_tokens for pack in packs)
            steps += 1
        taken = time.perf_counter() - began
    return {
        "instances_per_second": instances / taken,
        "tokens_per_second": tokens / taken,
        "instance_tokens": tokens / instances,
    }


def measure_loader_wait(
    taker: Taker, sets: Sequence[TaskSet], workers: int, steps: int, advance: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Trains `steps` steps of `sets` in turns, fed by `workers` processes (0: by none but this one).

    `share`: of the time, in which it waited for packs.

    As many steps as workers are ahead come before the clock starts, so that nothing made in advance flatters it.
    """
    stream = taker.trainer.stream
    lanes = [Lane() for _ in range(stream.lanes)]
    tokens = 0
    with Loader(stream, [RepeatingPlan(sets)], workers) as loader:
        before = 0 if workers == 0 else AHEAD + 1
        for step in range(before + steps):
            if step == before:
                loader.waited, began = 0.0, time.perf_counter()
            packs, lanes = loader.take(0, step, lanes)
            taker.train(packs)
            if step >= before:
                tokens += sum(pack.real_tokens for pack in packs)
                advance()
        taken = time.perf_counter() - began
        return {
            "workers": workers,
            "share": loader.waited / taken,
            "tokens_per_second": tokens / taken,
            "steps": steps,
        }
