"""Choose a sample of steps with the task mix of a run's plan, and extrapolate to the full plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

from ernie2.batches.stages import StagePlan, interleave
from ernie2.training.measuring import TaskSet


def sample_task_sets(counts: Mapping[TaskSet, int], steps: int) -> list[TaskSet]:
    """Return `steps` task sets in the proportions of `counts` (steps of the plan, most frequent first), interleaved.

    Every set occurs at least once; if there are more sets than steps, the rarest are left out. Counts
    {a: 8, b: 1, c: 1} and 5 steps -> a a b a c, in some order.
    """
    chosen = list(counts)[:steps]
    assigned = dict.fromkeys(chosen, 1)
    total = sum(counts[each] for each in chosen)
    for _ in range(steps - len(chosen)):
        short = max(chosen, key=lambda each: steps * counts[each] / total - assigned[each])
        assigned[short] += 1
    return [chosen[place] for place in interleave(list(assigned.values()))]


class RepeatingPlan(StagePlan):
    """An endless plan that repeats task sets."""

    def __init__(self, sets: Sequence[TaskSet]) -> None:
        self.sets = tuple(sets)
        self.tasks = tuple(dict.fromkeys(name for each in sets for name in each.active))
        self.main_tasks = np.array([self.tasks.index(each.main_task) for each in sets])

    def __len__(self) -> int:
        return 1 << 40  # practically endless

    def active_tasks(self, step: int) -> tuple[str, ...]:
        return self.sets[step % len(self.sets)].active

    def main_task(self, step: int) -> str:
        return self.sets[step % len(self.sets)].main_task


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One measured step: seconds, real tokens, their operations, and tokens including padding."""

    seconds: float
    tokens: int
    flops: int
    with_padding: int


@dataclass
class MeasuredSteps:
    """Measured steps of one side, by task set."""

    steps: dict[TaskSet, list[MeasuredStep]] = field(default_factory=dict)

    def add(self, chosen: TaskSet, step: MeasuredStep) -> None:
        self.steps.setdefault(chosen, []).append(step)

    def rates(self, counts: Mapping[TaskSet, int], only: Iterable[str] = ()) -> Rates | None:
        """Return the rates of the full plan: the median step of each set, weighted by `counts`; None without steps.

        `only`: use only sets in which one of these tasks is active. Sets without steps count like the others.
        """
        names = set(only)
        measured = {s: steps for s, steps in self.steps.items() if not names or names.intersection(s.active)}
        if not measured:
            return None
        seconds = sum(counts[chosen] * median(step.seconds for step in steps) for chosen, steps in measured.items())
        tokens, flops, padded = (
            sum(counts[chosen] * fmean(getattr(step, what) for step in steps) for chosen, steps in measured.items())
            for what in ("tokens", "flops", "with_padding")
        )
        every = [step.seconds for steps in measured.values() for step in steps]
        return Rates(tokens / seconds, flops / seconds, median(every), tokens / padded, len(every))


@dataclass(frozen=True, slots=True)
class Rates:
    """Real tokens/s and operations/s for the plan's mix, the median step, and the share of real tokens."""

    tokens_per_second: float
    flops_per_second: float
    median_seconds: float
    real_share: float
    steps: int
