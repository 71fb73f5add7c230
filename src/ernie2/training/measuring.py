"""Forecast the time of a run from real steps of every task set, a held-out evaluation and a checkpoint.

The trainer is discarded afterwards. Only a checkpoint is written, to a folder that is then removed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.batches.stages import StagePlan
from ernie2.batches.streams import StreamState
from ernie2.errors import StorageError
from ernie2.storage.atomic import temporary_folder
from ernie2.training import checkpoints
from ernie2.training.step import LocalBatch, take_step
from ernie2.training.step_inputs import loader_workers
from ernie2.training.trainer import Trainer

MIN_ROUNDS = 3
"""Steps measured for every task set, if they take no longer than twice the given time."""


@dataclass(frozen=True, slots=True)
class TaskSet:
    """What a step trains: the task whose data is read, and all tasks that are trained."""

    main_task: str
    active: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as records of `ernie2 bench` hold it."""
        return {"main_task": self.main_task, "active": self.active}


@dataclass
class StepCost:
    """Sums over measured steps: seconds of packing and of training, real tokens."""

    steps: int = 0
    packing: float = 0.0
    training: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class RunCost:
    """Forecast of a run: seconds by part, tokens, and how many of its task sets were measured."""

    steps: float
    evaluations: float
    checkpoints: float
    tokens: int
    tokens_per_second: float
    measured_sets: int
    sets: int
    checkpoint_bytes: int | None


@dataclass
class Measurements:
    """Measured cost of each task set; seconds of one evaluation and of one checkpoint."""

    sets: Mapping[TaskSet, StepCost]
    evaluation: float
    checkpoint: float
    checkpoint_bytes: int | None
    workers: int = 0


def task_sets(plans: Sequence[StagePlan]) -> dict[TaskSet, int]:
    """Return the different task sets of the plans with their numbers of steps, the most frequent first."""
    counts: Counter[TaskSet] = Counter()
    for plan in plans:
        counts.update(TaskSet(plan.main_task(step), plan.active_tasks(step)) for step in range(len(plan)))
    return dict(counts.most_common())


def measure(
    trainer: Trainer,
    *,
    seconds: float,
    run_folder: Path,
    advance: Callable[[], None] = lambda: None,
) -> Measurements:
    """Measure real steps of every task set of `trainer`, alternating, for about `seconds`.

    Each set has one warm-up step. With long steps, the rarest sets are left out, and the time may double until each set
    has three steps. At least one step of the most frequent set is measured, and never more steps than the plans have.
    `run_folder`: future run folder; a checkpoint is written beside it and removed. `advance` is called after each step.
    """
    sets = list(task_sets(trainer.plans))
    costs = {chosen: StepCost() for chosen in sets}
    runner = StepRunner(trainer)
    began = time.monotonic()
    warm: list[TaskSet] = []
    for chosen in sets:
        if warm and time.monotonic() - began > seconds / 2:
            break
        runner.run(chosen, StepCost())
        warm.append(chosen)
        advance()
    for number, chosen in enumerate(islice(cycle(warm), sum(map(len, trainer.plans)))):
        limit = seconds if number >= MIN_ROUNDS * len(warm) else 2 * seconds
        if number and time.monotonic() - began > limit:
            break
        runner.run(chosen, costs[chosen])
        advance()
    at = time.monotonic()
    trainer.heldout.evaluate(trainer.model, trainer.group.device, trainer.precision)
    evaluation = time.monotonic() - at
    written, size = _checkpoint_cost(trainer, run_folder)
    settings, streams = trainer.settings, trainer.streams.count
    workers = loader_workers(settings.workers, trainer.group.device, streams, trainer.plans)
    return Measurements(costs, evaluation, written, size, workers)


def forecast(trainer: Trainer, measured: Measurements) -> RunCost:
    """Forecast the entire run; task sets that were not measured count with the mean seconds per token of the others."""
    counts = task_sets(trainer.plans)
    known = {chosen: cost for chosen, cost in measured.sets.items() if cost.steps}
    everything = StepCost(
        *map(sum, zip(*((c.steps, c.packing, c.training, c.tokens) for c in known.values()), strict=True))
    )
    seconds = tokens = 0.0
    for chosen, steps in counts.items():
        cost = known.get(chosen, everything)
        turns = -(-trainer.streams.count // measured.workers) if measured.workers else 0
        packing = cost.packing * turns / trainer.streams.count
        step = max(cost.training, packing) if measured.workers else cost.training + cost.packing
        seconds += steps * step / cost.steps
        tokens += steps * cost.tokens / cost.steps
    evaluations, saved = count_evaluations_and_checkpoints(trainer)
    return RunCost(
        steps=seconds,
        evaluations=evaluations * measured.evaluation,
        checkpoints=saved * measured.checkpoint,
        tokens=round(tokens),
        tokens_per_second=tokens / max(seconds, 1e-9),
        measured_sets=len(known),
        sets=len(counts),
        checkpoint_bytes=measured.checkpoint_bytes,
    )


def count_evaluations_and_checkpoints(trainer: Trainer) -> tuple[int, int]:
    """Return the numbers of evaluations and checkpoints of the run: at its start, within stages and at their ends."""
    ends = {sum(map(len, trainer.plans[: number + 1])) for number in range(len(trainer.plans))}
    steps, every = max(ends), trainer.settings.evaluate_every
    inside = len(set(range(every, steps + 1, every)) - ends) if every else 0
    saves = trainer.settings.checkpoint_every
    return 1 + inside + len(ends), 1 + len(set(range(saves, steps + 1, saves)) - ends) + len(ends)


class StepRunner:
    """Runs steps of any task set on the data streams, at a learning rate that hardly changes the parameters."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.device = trainer, trainer.group.device
        self._states = [StreamState() for _ in range(trainer.streams.count)]
        self._number = 0
        trainer.model.train()

    def packs(self, chosen: TaskSet) -> list[PackedBatch]:
        """Return the next packs of a task set, one per data stream."""
        streams = self.trainer.streams
        filled = [streams.pack(j, state, chosen.main_task, chosen.active) for j, state in enumerate(self._states)]
        self._states = [state for _, state in filled]
        return [pack for pack, _ in filled]

    def train(self, packs: Sequence[PackedBatch]) -> float:
        """Run one optimiser step on `packs` as the trainer does, wait for the device, and return the seconds."""
        trainer = self.trainer
        self._number += 1
        synchronise(self.device)
        began = time.perf_counter()
        batch = LocalBatch.of(packs, ("measuring", self._number))
        take_step(trainer.model, trainer.optimizer, batch, trainer.step_settings, trainer.settings.peak_lr / 1000)
        trainer.freed_memory.trim_if_grown()
        synchronise(self.device)
        return time.perf_counter() - began

    def run(self, chosen: TaskSet, cost: StepCost) -> None:
        """Run one step of a task set and add its seconds and tokens to `cost`."""
        began = time.perf_counter()
        packs = self.packs(chosen)
        packing = time.perf_counter() - began
        training = self.train(packs)
        cost.steps += 1
        cost.packing += packing
        cost.training += training
        cost.tokens += sum(pack.real_tokens for pack in packs)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _checkpoint_cost(trainer: Trainer, run_folder: Path) -> tuple[float, int | None]:
    """Return seconds and bytes of a checkpoint on the disk of the run, or (0, None) if it cannot be written."""
    folder = run_folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    try:
        with temporary_folder(folder / "ernie2-plan") as scratch:
            began = time.monotonic()
            written = checkpoints.save(scratch, 0, trainer.model, trainer.optimizer, {})
            seconds = time.monotonic() - began
            size = sum(file.stat().st_size for file in written.iterdir())
    except (OSError, StorageError):
        return 0.0, None
    return seconds, size
