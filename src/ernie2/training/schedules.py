"""Learning-rate schedules, over the steps of a stage, the steps of the run, or the iterations of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ernie2.batches.stages import StagePlan
from ernie2.config.settings import TrainSettings
from ernie2.training.state import Position


def noam(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, then fall with the inverse square root of the step; `total` is not used."""
    return min(step / warmup, math.sqrt(warmup / step))


def linear(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, then fall linearly to 0 after the last step."""
    return warmup_stable_decay(step, total, warmup, total - warmup)


def warmup_stable_decay(step: int, total: int, warmup: float, decay: float) -> float:
    """Rise linearly over `warmup` steps, stay constant, then fall linearly to 0 over the last `decay` steps.

    If warm-up and decay overlap, the lower value counts.
    """
    rising = step / warmup if warmup > 0 else 1.0
    falling = (total - step + 1) / decay if decay > 0 else 1.0
    return min(rising, falling, 1.0)


SCHEDULES: Mapping[str, Callable[[int, int, float, float], float]] = {
    "noam": noam,
    "linear": linear,
    "wsd": warmup_stable_decay,
}
"""Schedules by their names in `train.schedule`: (step from 1, total, warmup, decay) → share of the peak rate."""


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Return the warm-up in steps for `steps` iterations per task: as set, else 8 %, at most 4,000."""
    if settings.warmup is None:
        return max(1, min(4_000, round(0.08 * steps)))
    return max(1, _steps(settings.warmup, steps))


def learning_rate(
    settings: TrainSettings, warmup: int, at: Position, plans: Sequence[StagePlan], active: Sequence[str]
) -> float:
    """Return the learning rate of the last step counted in `at`, which trains the tasks in `active`.

    With `restart: per_task` each active task has a rate by its own iterations, and the smallest is used, so that a new
    task warms up slowly in combined steps, too.
    """
    schedule = SCHEDULES[settings.schedule]
    return min(
        settings.peak_lr * schedule(step, total, warmup, _steps(settings.lr_decay, total))
        for step, total in _counts(settings.restart, at, plans, active)
    )


def _counts(restart: str, at: Position, plans: Sequence[StagePlan], active: Sequence[str]) -> list[tuple[int, int]]:
    """Return (current, final) counts of the schedule; later stages count as planned."""
    plan, later = plans[at.stage], plans[at.stage + 1 :]
    if restart == "per_stage":
        return [(at.stage_step, len(plan))]
    if restart == "never":
        step = at.step - at.schedule_start
        return [(step, step + len(plan) - at.stage_step + sum(map(len, later)))]
    done = plan.iterations_before(at.stage_step)
    left = {task: sum(other.stage.iterations_of(task) for other in (plan, *later)) - done[task] for task in active}
    return [(at.task_steps[task], at.task_steps[task] + left[task]) for task in active]


def _steps(steps: float, total: int) -> int:
    """Return a number of steps; values below 1 are shares of `total`."""
    return round(steps * total) if steps < 1 else int(steps)
