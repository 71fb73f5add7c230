"""Time training steps with all optimisations and without one, alternating on the same packs, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.measured_trainer import MeasuredTrainer
from ernie2.benchmarking.mix import MeasuredStep, MeasuredSteps, sample_task_sets
from ernie2.benchmarking.warm_up import MAX_STEPS, warm_up
from ernie2.config.settings import Recipe
from ernie2.model import optimizations
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training.measuring import TaskSet, task_sets

ALL = "all optimisations"
NONE = "no optimisation"
_MAX_GRAPHS = 64
"""Graphs of one function, one per variant and shape; torch's default is lower."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant of the training step: its name and the optimisations that are off."""

    name: str
    off: tuple[str, ...] = ()


@dataclass
class VariantTimes:
    """The steps of one variant. `rounds`: for each round, the seconds of every task set."""

    form: Variant
    steps: MeasuredSteps = field(default_factory=MeasuredSteps)
    rounds: list[dict[TaskSet, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """Time of a variant over the time with all optimisations: median, smallest and largest over rounds."""

    median: float
    least: float
    most: float


def ablation_variants(names: Sequence[str]) -> list[Variant]:
    """Return the variants: all on, each of `names` off by itself, and all of `names` off if there are several."""
    each = [Variant(f"without {name}", (name,)) for name in names]
    together = [
        Variant(NONE if set(names) == set(optimizations.OPTIMIZATIONS) else "without all of these", tuple(names))
    ]
    return [Variant(ALL), *each, *(together if len(names) > 1 else [])]


def time_variants(
    recipe: Recipe,
    shards: Shards,
    device: torch.device,
    measured: Sequence[Variant],
    *,
    steps: int,
    rounds: int,
    note: Callable[[Variant, TaskSet, MeasuredStep], None] = lambda *_: None,
    advance: Callable[[str], None] = lambda _: None,
    after_round: Callable[[Sequence[VariantTimes], Mapping[TaskSet, int]], None] = lambda *_: None,
) -> tuple[list[VariantTimes], Mapping[TaskSet, int]]:
    """Time steps of all variants alternately; return the times of each and the plan's steps by task set.

    Each variant has its own model, built with its optimisations off, since some act when a model is built. In each of
    `rounds` rounds all variants train on the same packs of `steps` distinct task sets, in the plan's mix. The variant
    that goes first changes from set to set. A `warm_up` comes first.

    Calls `note` after every measured step, `advance` with a progress text, `after_round` with all results so far.
    """
    torch._dynamo.config.recompile_limit = _MAX_GRAPHS
    sides = [_VariantSide(form, recipe, shards, device) for form in measured]
    trainer, packs_of = sides[0].trainer, sides[0].ours.runner.packs
    counts = task_sets(trainer.plans)
    sets = list(dict.fromkeys(sample_task_sets(counts, steps)))

    def report_warm_up(number: int, least: int, *_: object) -> None:
        advance(f"warm-up of every variant, step {number} of {least} to {max(least, MAX_STEPS)}")

    warm_up(sides, packs_of, sets, compiled=trainer.model.static_shapes, advance=report_warm_up)
    times = [VariantTimes(form) for form in measured]
    pairs = list(zip(sides, times, strict=True))
    for number in range(rounds):
        for each in times:
            each.rounds.append({})
        for place, chosen in enumerate(sets):
            packs, first = packs_of(chosen), (number + place) % len(pairs)
            for side, each in pairs[first:] + pairs[:first]:
                step = side.step(packs)
                each.steps.add(chosen, step)
                each.rounds[-1][chosen] = step.seconds
                note(each.form, chosen, step)
            advance(f"every variant, round {number + 1} of {rounds}, task set {place + 1} of {len(sets)}")
        after_round(times, counts)
    return times, counts


class _VariantSide:
    """The model of one variant, built and trained with its optimisations off."""

    def __init__(self, form: Variant, recipe: Recipe, shards: Shards, device: torch.device) -> None:
        self.name, self._off = form.name, form.off
        with optimizations.disabled(*self._off):
            made = build(recipe, shards)
            self.trainer = made.trainer
            self.ours = MeasuredTrainer(made.trainer, made.record.precision, device)

    def step(self, packs: Sequence[PackedBatch]) -> MeasuredStep:
        """Run one optimiser step on `packs` with the optimisations off."""
        with optimizations.disabled(*self._off):
            return self.ours.step(packs)


def slowdown(
    with_all: VariantTimes, form: VariantTimes, counts: Mapping[TaskSet, int], only: TaskSet | None = None
) -> Slowdown:
    """Return the slowdown of `form`: each round's steps weighted by `counts`, or only task set `only`."""
    ratios = []
    for before, after in zip(with_all.rounds, form.rounds, strict=True):
        sets = [chosen for chosen in before if only in (None, chosen)]
        slow, fast = (sum(counts[chosen] * each[chosen] for chosen in sets) for each in (after, before))
        ratios.append(slow / fast)
    return Slowdown(median(ratios), min(ratios), max(ratios))
