"""What each lever gives: steps with all levers and without one, in turns on the same packs, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from ernie2.batches.batch import PackedBatch
from ernie2.benchmarking.mix import Step, Taken, sample
from ernie2.benchmarking.ours import Ours
from ernie2.benchmarking.warm_up import MOST_STEPS, warm_up
from ernie2.config.settings import Recipe
from ernie2.model import levers
from ernie2.runs.build import build
from ernie2.shards.store import Shards
from ernie2.training.measuring import TaskSet, task_sets

ALL = "all levers"
NONE = "no lever"
_FORMS_A_FUNCTION = 64
"""How often one function may be compiled: once a form and shape, more than torch allows by default."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of the step: its name, and the levers that are off in it."""

    name: str
    off: tuple[str, ...] = ()


@dataclass
class FormTimes:
    """The steps of one form. `rounds` holds, a round, the seconds of every task set."""

    form: Form
    taken: Taken = field(default_factory=Taken)
    rounds: list[dict[TaskSet, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times as long a form takes as with all levers, over rounds: median, least and most."""

    median: float
    least: float
    most: float


def forms(names: Sequence[str]) -> list[Form]:
    """All levers on; each of `names` off by itself; and all of `names` off where they are several."""
    each = [Form(f"without {name}", (name,)) for name in names]
    together = [Form(NONE if set(names) == set(levers.LEVERS) else "without all of these", tuple(names))]
    return [Form(ALL), *each, *(together if len(names) > 1 else [])]


def take_turns(
    recipe: Recipe,
    shards: Shards,
    device: torch.device,
    measured: Sequence[Form],
    *,
    steps: int,
    rounds: int,
    note: Callable[[Form, TaskSet, Step], None] = lambda *_: None,
    advance: Callable[[str], None] = lambda _: None,
    after_round: Callable[[Sequence[FormTimes], Mapping[TaskSet, int]], None] = lambda *_: None,
) -> tuple[list[FormTimes], Mapping[TaskSet, int]]:
    """Train steps of every form in turns; return the times of each, and the steps of the plan by task set.

    Every form has a model of its own, built with its levers off, since a lever may act when a model is built. In each
    of `rounds` rounds every form trains on the same packs of `steps` task sets (in the mix of the plan, each different
    set once); which form goes first changes from set to set. A `warm_up` comes before. `note` is called
    after every measured step, `advance` with what was just done, `after_round` with all there is after a round.
    """
    torch._dynamo.config.recompile_limit = _FORMS_A_FUNCTION
    sides = [_FormSide(form, recipe, shards, device) for form in measured]
    trainer, packs_of = sides[0].trainer, sides[0].ours.taker.packs
    counts = task_sets(trainer.plans)
    sets = list(dict.fromkeys(sample(counts, steps)))

    def warmed(number: int, least: int, *_: object) -> None:
        advance(f"warm-up of every form, step {number} of {least} to {max(least, MOST_STEPS)}")

    warm_up(sides, packs_of, sets, compiled=trainer.model.static_shapes, advance=warmed)
    times = [FormTimes(form) for form in measured]
    pairs = list(zip(sides, times, strict=True))
    for number in range(rounds):
        for each in times:
            each.rounds.append({})
        for place, chosen in enumerate(sets):
            packs, first = packs_of(chosen), (number + place) % len(pairs)
            for side, each in pairs[first:] + pairs[:first]:
                step = side.step(packs)
                each.taken.add(chosen, step)
                each.rounds[-1][chosen] = step.seconds
                note(each.form, chosen, step)
            advance(f"every form, round {number + 1} of {rounds}, task set {place + 1} of {len(sets)}")
        after_round(times, counts)
    return times, counts


class _FormSide:
    """A model of `form`, built and trained with its levers off."""

    def __init__(self, form: Form, recipe: Recipe, shards: Shards, device: torch.device) -> None:
        self.name, self._off = form.name, form.off
        with levers.without(*self._off):
            made = build(recipe, shards)
            self.trainer = made.trainer
            self.ours = Ours(made.trainer, made.record.precision, device)

    def step(self, packs: Sequence[PackedBatch]) -> Step:
        """One optimiser step on `packs` with the levers off."""
        with levers.without(*self._off):
            return self.ours.step(packs)


def gain(with_all: FormTimes, form: FormTimes, counts: Mapping[TaskSet, int], only: TaskSet | None = None) -> Gain:
    """Seconds of `form` over those with all levers, of each round's steps weighed by `counts`; of one set if `only`."""
    ratios = []
    for before, after in zip(with_all.rounds, form.rounds, strict=True):
        sets = [chosen for chosen in before if only in (None, chosen)]
        slow, fast = (sum(counts[chosen] * each[chosen] for chosen in sets) for each in (after, before))
        ratios.append(slow / fast)
    return Gain(median(ratios), min(ratios), max(ratios))
