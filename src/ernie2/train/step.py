"""One optimiser step: accumulate the packs of a global batch, clip, step.

The loss of a step is Σ_t w_t · (sum_t / count_t) with counts over the whole global batch, known before the first
backward; so splitting a batch into packs, or saying a task's labels twice, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ernie2.batches.batch import PackedBatch
from ernie2.batches.order import seed_of
from ernie2.model.inputs import Inputs


@dataclass(frozen=True, slots=True)
class StepResult:
    """Per task over the global batch: summed loss and number correct (0-d tensors), count; and the norm before
    clipping.
    """

    losses: Mapping[str, Tensor]
    correct: Mapping[str, Tensor]
    counts: Mapping[str, int]
    grad_norm: Tensor


def choose_precision(wanted: str, device: torch.device) -> str:
    """ "bf16" or "fp32": `auto` takes bf16 where the device computes in it."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu":
        bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if bf16 else "fp32"
    return "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context matmuls run in; parameters, statistics and losses stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def seed_dropout(*key: str | int) -> None:
    """Seeds dropout from a key such as (seed, step, pack): no state needs saving, and any world size agrees."""
    torch.manual_seed(seed_of(*key) & 0x7FFF_FFFF_FFFF_FFFF)


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    packs: Sequence[PackedBatch],
    *,
    weights: Mapping[str, float],
    lr: float,
    clip: float,
    precision: str,
    device: torch.device,
    dropout_key: tuple[str | int, ...],
) -> StepResult:
    """Forward and backward over `packs`, then one clipped optimiser step at rate `lr`. Heads without targets are
    untouched.
    """
    counts: dict[str, int] = {}
    for pack in packs:
        for name, targets in pack.targets.items():
            counts[name] = counts.get(name, 0) + targets.count
    losses: dict[str, Tensor] = {}
    correct: dict[str, Tensor] = {}
    optimizer.zero_grad(set_to_none=True)
    for number, pack in enumerate(packs):
        seed_dropout(*dropout_key, number)
        inputs = Inputs.of(pack, device, static=device.type == "cuda")
        with autocast(precision, device):
            made = model(inputs)
        if not made:
            continue
        terms = [weights[name] / counts[name] * task.sum for name, task in made.items()]
        torch.autograd.backward(torch.stack(terms).sum())
        for name, task in made.items():
            total = task.sum.detach()
            losses[name] = losses[name] + total if name in losses else total
            right = torch.as_tensor(task.correct)
            correct[name] = correct[name] + right if name in correct else right
    grad_norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return StepResult(losses, correct, counts, grad_norm)
