"""Input pipeline: the rate of one loader worker, and how long training waits for packs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ernie2.batches.loader import PREFETCH_STEPS, Loader
from ernie2.batches.streams import DataStreams, StreamState
from ernie2.benchmarking.mix import RepeatingPlan
from ernie2.training.measuring import StepRunner, TaskSet
from ernie2.training.step_inputs import loader_workers

_MIN_STEPS = 3


def measure_input_pipeline(
    runner: StepRunner,
    sets: Sequence[TaskSet],
    steps: int,
    seconds: float = 2.0,
    advance: Callable[[], None] = lambda: None,
    note: Callable[[str, Mapping[str, Any]], None] = lambda *_: None,
) -> dict[str, Any]:
    """Measure one loader worker by itself, then training without workers and with the default number (at least one).

    Takes about `seconds`, then `steps` steps for each of the two. Calls `note` with each measurement at once.
    """
    trainer = runner.trainer
    usual = loader_workers(trainer.settings.workers, runner.device, trainer.streams.count, trainer.plans)
    alone = loader_rate(trainer.streams, sets, seconds)
    note("one_process", alone)
    fed = []
    for workers in (0, usual or 1):
        fed.append(measure_loader_wait(runner, sets, workers, steps, advance))
        note("waiting", fed[-1])
    return {"one_process": alone, "default_workers": usual, "waiting": fed}


def loader_rate(streams: DataStreams, sets: Sequence[TaskSet], seconds: float = 2.0) -> dict[str, float]:
    """Return instances/s and real tokens/s of one loader worker by itself, measured for about `seconds`."""
    states = [StreamState() for _ in range(streams.count)]
    instances = tokens = steps = 0
    with Loader(streams, [RepeatingPlan(sets)], 1) as loader:
        for step in range(PREFETCH_STEPS + 1):
            _, states = loader.load(0, step, states)
        began = time.perf_counter()
        while steps < _MIN_STEPS or time.perf_counter() - began < seconds:
            packs, states = loader.load(0, PREFETCH_STEPS + 1 + steps, states)
            instances += sum(len(pack.starts) - 1 for pack in packs)
            tokens += sum(pack.real_tokens for pack in packs)
            steps += 1
        elapsed = time.perf_counter() - began
    return {
        "instances_per_second": instances / elapsed,
        "tokens_per_second": tokens / elapsed,
        "instance_tokens": tokens / instances,
    }


def measure_loader_wait(
    runner: StepRunner, sets: Sequence[TaskSet], workers: int, steps: int, advance: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Train `steps` steps of `sets` alternately, with `workers` loader workers (0: packs are built in this process).

    `share`: share of the time spent waiting for packs. The prefetched steps are trained before the clock starts.
    """
    streams = runner.trainer.streams
    states = [StreamState() for _ in range(streams.count)]
    tokens = 0
    with Loader(streams, [RepeatingPlan(sets)], workers) as loader:
        before = 0 if workers == 0 else PREFETCH_STEPS + 1
        for step in range(before + steps):
            if step == before:
                loader.wait_seconds, began = 0.0, time.perf_counter()
            packs, states = loader.load(0, step, states)
            runner.train(packs)
            if step >= before:
                tokens += sum(pack.real_tokens for pack in packs)
                advance()
        elapsed = time.perf_counter() - began
        return {
            "workers": workers,
            "share": loader.wait_seconds / elapsed,
            "tokens_per_second": tokens / elapsed,
            "steps": steps,
        }
