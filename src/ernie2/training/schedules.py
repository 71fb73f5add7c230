"""Learning rate: the noam schedule and where it starts over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ernie2.config.settings import TrainSettings


def noam(step: int, peak: float, warmup: int) -> float:
    """The rate of step 1, 2, …: peak · min(step / warmup, sqrt(warmup / step)); the peak comes at step = warmup."""
    return peak * min(step / warmup, math.sqrt(warmup / step))


def warmup_steps(settings: TrainSettings, steps: int) -> int:
    """Warm-up in optimiser steps for `steps` iterations a task: as set (steps, or a fraction below 1), else min(4000, 8
    %).
    """
    warmup = settings.warmup
    if warmup is None:
        return max(1, min(4_000, round(0.08 * steps)))
    return max(1, round(warmup * steps)) if warmup < 1 else int(warmup)


def learning_rate(
    settings: TrainSettings,
    warmup: int,
    *,
    step: int,
    stage_step: int,
    task_steps: Mapping[str, int],
    active: Sequence[str],
) -> float:
    """The rate of one optimiser step, all counts from 1.

    `step` since the schedule began, `stage_step` in the stage, `task_steps` iterations of each task so far, this one
    included. With `restart: per_task` every active task has a rate of its own count, and the smallest counts: a
    newcomer warms up slowly whatever rides beside it.
    """
    if settings.restart == "per_stage":
        return noam(stage_step, settings.peak_lr, warmup)
    if settings.restart == "never":
        return noam(step, settings.peak_lr, warmup)
    return min(noam(max(1, task_steps[task]), settings.peak_lr, warmup) for task in active)
