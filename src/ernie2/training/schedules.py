"""Learning-rate schedules by name, and what they count: steps of a stage or of the run, or iterations of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ernie2.batches.stages import StagePlan
from ernie2.config.settings import TrainSettings
from ernie2.training.state import Position


def noam(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, then fall with the inverse square root of the step, whatever the `total`."""
    return min(step / warmup, math.sqrt(warmup / step))


def linear(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, then fall linearly towards 0 behind the last."""
    return warmup_stable_decay(step, total, warmup, total - warmup)


def warmup_stable_decay(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, stay, and fall linearly over the last `decay` steps towards 0 behind the last.

    Where the rise and the fall overlap, the lower of the two counts.
    """
    rising = step / warmup if warmup > 0 else 1.0
    falling = (total - step + 1) / decay if decay > 0 else 1.0
    return min(rising, falling, 1.0)


SCHEDULES: Mapping[str, Callable[[int, int, float, float], float]] = {
    "noam": noam,
    "linear": linear,
    "wsd": warmup_stable_decay,
}
"""By the name in `train.schedule`: step 1, 2, …, `total`; warm-up and decay in steps → the share of the peak rate."""


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Return the warm-up in steps for `steps` iterations a task: as set, by default the least of 4,000 and 8 %."""
    if settings.warmup is None:
        return max(1, min(4_000, round(0.08 * steps)))
    return max(1, _steps(settings.warmup, steps))


def learning_rate(
    settings: TrainSettings, warmup: int, at: Position, plans: Sequence[StagePlan], active: Sequence[str]
) -> float:
    """Return the rate of the step that `at` counts last, in which the tasks in `active` are trained.

    With `restart: per_task` every active task has a rate of its own count, and the smallest counts: a newcomer warms up
    slowly whatever rides beside it.
    """
    schedule = SCHEDULES[settings.schedule]
    return min(
        settings.peak_lr * schedule(step, total, warmup, _steps(settings.lr_decay, total))
        for step, total in _counts(settings.restart, at, plans, active)
    )


def _counts(restart: str, at: Position, plans: Sequence[StagePlan], active: Sequence[str]) -> list[tuple[int, int]]:
    """What the schedule counts, each as its number now and at its end; stages still to come are taken as planned."""
    plan, later = plans[at.stage], plans[at.stage + 1 :]
    if restart == "per_stage":
        return [(at.stage_step, len(plan))]
    if restart == "never":
        step = at.step - at.schedule_start
        return [(step, step + len(plan) - at.stage_step + sum(map(len, later)))]
    done = plan.iterations_before(at.stage_step)
    left = {task: sum(other.stage.of(task) for other in (plan, *later)) - done[task] for task in active}
    return [(at.task_steps[task], at.task_steps[task] + left[task]) for task in active]


def _steps(given: float, total: int) -> int:
    """Return steps from steps, or from a share of `total` below 1."""
    return round(given * total) if given < 1 else int(given)
