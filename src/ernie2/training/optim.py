"""Optimiser and learning rate: fused Adam with decoupled decay, the noam schedule and where it starts over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ernie2.config.settings import TrainSettings


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """Fused AdamW over all parameters; biases and norms are not decayed.

    State exists for every parameter from the start, so a checkpoint in which some head was never trained is complete.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (plain if parameter.ndim < 2 or name.endswith("bias") else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.peak_lr, betas=settings.betas, eps=settings.adam_eps, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    return optimizer


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
