"""The training loop of fine-tuning: epochs and batches of sequences, with the training step of pre-training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from ernie2.batches.order import generator
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.config.settings import TrainSettings
from ernie2.console import progress
from ernie2.errors import RunStopped
from ernie2.finetuning.encoding import TARGET_NAME, EncodedSequence, build_packs
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.finetuning.pruned_embedding import EmbeddingPruner
from ernie2.training.hooks.base import Hooks, StepDone
from ernie2.training.memory import reuse_freed_memory
from ernie2.training.optimizers import build_optimizer
from ernie2.training.schedules import warmup_stable_decay
from ernie2.training.state import Position
from ernie2.training.step import LocalBatch, LossScale, StepSettings, choose_precision, take_step
from ernie2.training.step_inputs import StepInputs


@dataclass
class History:
    """Losses and speed of a run.

    `losses`: mean loss per step. `epochs`: one record per epoch (number, mean loss, seconds, result of `after_epoch`).
    `diverged`: why the run was ended, or ''.
    """

    losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    sequences_per_second: float = 0.0
    diverged: str = ""


def train_model(
    model: EncoderWithHead,
    train: Sequence[EncodedSequence],
    settings: FineTuningSettings,
    seed: int,
    device: torch.device,
    *,
    task_id: int = 0,
    pad: int = 0,
    title: str | None = None,
    after_epoch: Callable[[], Mapping[str, Any]] | None = None,
    max_steps: int | None = None,
    hooks: Hooks | None = None,
) -> History:
    """Train `model` in place on `device`; order and dropout depend only on `seed`.

    `title`: of the progress bar; None for no bar. `after_epoch` is called after each epoch, its result is recorded.
    `max_steps` ends the run early without changing the schedule, for comparisons and timing. `hooks`, opened by the
    caller, receive every step and epoch. A run with a non-finite loss ends after that epoch, see `History.diverged`.

    Raises `RunStopped` if a hook requests a stop.
    """
    freed_memory = reuse_freed_memory(device)
    model.to(device).train()
    precision = choose_precision(settings.precision, device)
    step_settings = StepSettings(
        weights={TARGET_NAME: 1.0},
        max_grad_norm=settings.max_grad_norm,
        precision=precision,
        device=device,
        scale=LossScale() if precision == "fp16" else None,
    )
    steps = count_steps(len(train), settings)
    history, done, train_seconds, hooks, position = History(), 0, 0.0, hooks or Hooks(), Position([])
    with EmbeddingPruner(model, train, pad) as pruner, progress(title, min(steps, max_steps or steps), "steps") as bar:
        adam = settings.model_dump(include={"peak_lr", "weight_decay", "betas", "adam_eps"})
        optimizer = build_optimizer(model, TrainSettings(**adam))
        for epoch in range(settings.epochs):
            losses, start, sequences = [], time.perf_counter(), 0
            for chosen in epoch_batches(len(train), settings.batch_size, seed, epoch):
                if done == max_steps:
                    break
                done += 1
                rate = learning_rate(done, steps, settings)
                packs = build_packs([train[i] for i in chosen], settings, task_id, pad)
                batch = LocalBatch.of(packs, (seed, "fine-tuning", done))
                hooks.before_step(done)
                result = take_step(model, optimizer, batch, step_settings, rate)
                pruner.record_decay(rate * settings.weight_decay, result.finite)
                losses.append(result.losses[TARGET_NAME] / result.counts[TARGET_NAME])
                sequences += len(chosen)
                inputs = StepInputs(
                    TARGET_NAME,
                    [TARGET_NAME],
                    batch,
                    {},
                    sum(pack.real_tokens for pack in packs),
                    {TARGET_NAME: len(chosen)},
                )
                position.count_step(inputs.active, inputs.tokens, inputs.seen)
                hooks.step(StepDone(done, 0, inputs, rate, result), position)
                _stop_if_requested(hooks, done, steps)
                freed_memory.trim_if_grown()
                bar.advance()
            if not losses:
                break
            epoch_losses = torch.stack(losses).float().cpu().tolist()  # one device synchronisation per epoch
            seconds = time.perf_counter() - start
            train_seconds += seconds
            history.losses += epoch_losses
            history.sequences_per_second += sequences
            record = {"epoch": epoch + 1, "loss": sum(epoch_losses) / len(epoch_losses), "seconds": round(seconds, 3)}
            if nonfinite := [number for number, loss in enumerate(history.losses, 1) if not math.isfinite(loss)]:
                history.diverged = f"the loss was not finite at step {nonfinite[0]} of {steps}"
            elif after_epoch is not None:
                with pruner.unpruned():
                    record |= after_epoch()
            history.epochs.append(record)
            hooks.line("epoch", **record)
            if nonfinite:
                break
    history.sequences_per_second = history.sequences_per_second / train_seconds if train_seconds else 0.0
    return history


def epoch_batches(count: int, batch: int, seed: int, epoch: int) -> Iterator[NDArray[Any]]:
    """Yield the batches of one epoch as (batch,) int64 indices of sequences, the last one shorter.

    A pure function of the arguments.
    """
    order = generator(seed, "fine-tuning order", epoch).permutation(count)
    for first in range(0, count, batch):
        yield order[first : first + batch]


def _stop_if_requested(hooks: Hooks, done: int, steps: int) -> None:
    if done < steps and (reason := hooks.stop_reason()) is not None:  # a complete run is saved
        raise RunStopped(
            f"{reason}: stopped at step {done:,} of {steps:,}. This run is not saved; the same command restarts it."
        )


def count_steps(sequences: int, settings: FineTuningSettings) -> int:
    """Return the number of optimiser steps of a run."""
    return settings.epochs * -(-sequences // settings.batch_size)


def learning_rate(step: int, steps: int, settings: FineTuningSettings) -> float:
    """Return the learning rate of step 1, 2, …: linear warm-up over `warmup_ratio` of `steps`, then the schedule.

    With `decay_from_zero` the linear decay counts from the first step, as in the released scripts, so the rate reaches
    only about (1 - warmup_ratio) · peak_lr. Otherwise it counts from the peak.
    """
    warmup = settings.warmup_ratio * steps
    decay = 0 if settings.schedule == "constant" else steps if settings.decay_from_zero else steps - warmup
    return settings.peak_lr * warmup_stable_decay(step, steps, warmup, decay)
