"""Which steps are measured: a few, in the mix the plan of a run has, and what follows from them for the whole plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from ernie2.batches.stages import StagePlan, interleave
from ernie2.training.measuring import TaskSet


def sample_task_sets(counts: Mapping[TaskSet, int], steps: int) -> list[TaskSet]:
    """`steps` task sets, as often as `counts` (steps of the plan, the commonest first) has them, interleaved.

    Every set comes once before any comes more often than its share; where there are more sets than steps, the rarest
    are left out. Counts {a: 8, b: 1, c: 1} and 5 steps -> a a b a c, in some order.
    """
    chosen = list(counts)[:steps]
    given = dict.fromkeys(chosen, 1)
    total = sum(counts[each] for each in chosen)
    for _ in range(steps - len(chosen)):
        short = max(chosen, key=lambda each: steps * counts[each] / total - given[each])
        given[short] += 1
    return [chosen[place] for place in interleave(list(given.values()))]


class RepeatingPlan(StagePlan):
    """Task sets over and over, as much of a plan without an end as a loader asks for."""

    def __init__(self, sets: Sequence[TaskSet]) -> None:
        self.sets = tuple(sets)
        self.tasks = tuple(dict.fromkeys(name for each in sets for name in each.active))
        self.main_tasks = np.array([self.tasks.index(each.main_task) for each in sets])

    def __len__(self) -> int:
        return 1 << 40  # more steps than anyone measures

    def active_tasks(self, step: int) -> tuple[str, ...]:
        return self.sets[step % len(self.sets)].active

    def main_task(self, step: int) -> str:
        return self.sets[step % len(self.sets)].main_task


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One measured step: its seconds, its real tokens, the operations they need, and the tokens with padding."""

    seconds: float
    tokens: int
    flops: int
    with_padding: int


@dataclass
class MeasuredSteps:
    """Measured steps by task set, of one contestant."""

    steps: dict[TaskSet, list[MeasuredStep]] = field(default_factory=dict)

    def add(self, chosen: TaskSet, step: MeasuredStep) -> None:
        self.steps.setdefault(chosen, []).append(step)

    def rates(self, counts: Mapping[TaskSet, int], only: Iterable[str] = ()) -> Rates | None:
        """What the whole plan would do: each set's median step, weighed by its `counts`; None without any measured.

        `only`: sets in which one of these tasks is active. A set that was not measured is taken to be like the others.
        """
        names = set(only)
        known = {s: taken for s, taken in self.steps.items() if not names or names.intersection(s.active)}
        if not known:
            return None
        seconds = sum(counts[chosen] * median(step.seconds for step in steps) for chosen, steps in known.items())
        tokens, flops, padded = (
            sum(counts[chosen] * fmean(getattr(step, what) for step in steps) for chosen, steps in known.items())
            for what in ("tokens", "flops", "with_padding")
        )
        every = [step.seconds for steps in known.values() for step in steps]
        return Rates(tokens / seconds, flops / seconds, median(every), tokens / padded, len(every))


@dataclass(frozen=True, slots=True)
class Rates:
    """Real tokens and operations a second over the plan's mix; the median step; the share of tokens that are real."""

    tokens_per_second: float
    flops_per_second: float
    median_seconds: float
    real_share: float
    steps: int
