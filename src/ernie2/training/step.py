"""One optimiser step: accumulate the packs of a global batch, unscale, clip, step.

The loss of a step is Σ_t w_t · (sum_t / count_t) with counts over the whole global batch, known before the first
backward; so splitting a batch into packs, packs among ranks, or saying a task's labels twice, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from ernie2.batches.batch import PackedBatch
from ernie2.batches.order import seed_of
from ernie2.errors import ConfigError
from ernie2.model.heads import TaskLoss
from ernie2.model.inputs import Inputs
from ernie2.training.finite import Finite
from ernie2.training.loss_scale import LossScale
from ernie2.training.parallel import Alone, whole

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Precision -> the dtype of matrix products."""
_TENSOR_CORES = (7, 0)
"""The compute capability from which a card has tensor cores, for fp16."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Per task over the global batch: summed loss and number correct (0-d tensors), count; and the norm before
    clipping. Where `finite` is false nothing was changed: parameters and moments are those before the step.
    """

    losses: Mapping[str, Tensor]
    correct: Mapping[str, Tensor]
    counts: Mapping[str, int]
    grad_norm: Tensor
    finite: Finite

    @property
    def skipped(self) -> bool:
        """Whether a loss or gradient was not finite; on CUDA this waits for the step where it was not scaled."""
        return not self.finite


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32": `wanted`, or for "auto" what the device computes in.

    That is bf16 on Ampere and later, on ROCm, and on CPUs with AVX-512 or AMX for it; fp16 on cards that have tensor
    cores and only emulate bf16 (V100, T4); else fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else "fp32"
    if device.type == "cpu":
        bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if bf16 else "fp32"
    return "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context matmuls run in; parameters, statistics and losses stay fp32."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def choose_compiling(wanted: str | bool, device: torch.device) -> bool:
    """Whether to compile: `auto` does on CUDA where it can; raises `ConfigError` where it is `wanted` and cannot be."""
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return False
    able = _compiles_cpp() if device.type == "cpu" else has_triton()
    if not able and wanted is True:
        needed = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "triton"
        raise ConfigError(f"train.compile=true needs {needed}, which was not found: install it, or set compile: false.")
    return able


def _compiles_cpp() -> bool:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


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
    scale: LossScale | None = None,
    ranks: Alone | None = None,
    counts: Mapping[str, int] | None = None,
    numbers: Sequence[int] | None = None,
) -> StepResult:
    """Forward and backward over `packs`, then one clipped optimiser step at rate `lr`. Heads without targets are
    untouched.

    Where many ranks train a model, `ranks` says how, `packs` are those of this rank, as many as any other has, `counts`
    the scored positions of all by task, and `numbers` the numbers of `packs` in the step, from which with `dropout_key`
    dropout is seeded; by default all packs are here, numbered from 0. The result is that of the whole batch, the same
    on all ranks.

    Where a loss or a gradient is not finite the optimiser does nothing; on CUDA the device decides that by itself.
    With `scale` (fp16) the loss is scaled for the backward pass, and `scale` learns how that went.
    """
    factor = 1.0 if scale is None else scale.value
    ranks = ranks or Alone(model)
    counts = counts_of(packs) if counts is None else counts
    optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    correct: dict[str, Tensor] = {}
    for place, (number, pack) in enumerate(zip(numbers or range(len(packs)), packs, strict=True), 1):
        seed_dropout(*dropout_key, number)
        with ranks.pack(last=place == len(packs)):
            made = _backward(ranks, pack, weights, counts, factor, precision, device)
        for name, task in made.items():
            total = task.sum.detach()
            losses[name] = losses[name] + total if name in losses else total
            right = torch.as_tensor(task.correct)
            correct[name] = correct[name] + right if name in correct else right
    losses, correct = ranks.total(losses), ranks.total(correct)
    if scale is not None:
        torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], 1 / factor)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    grad_norm = whole(norm)
    finite = Finite(losses, grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if scale is None and optimizer.defaults.get("fused") and decided_on_device(norm):
        optimizer.found_inf = finite.bad  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
        return StepResult(losses, correct, counts, grad_norm, finite)
    if scale is not None:
        scale.update(bool(finite))
    if finite:
        optimizer.step()
    return StepResult(losses, correct, counts, grad_norm, finite)


def decided_on_device(norm: Tensor) -> bool:
    """Whether the fused optimiser is told on the device to change nothing, so that the host need not wait for it.

    Not where parameters are sharded, which that way does not know; there a step waits for the norm.
    """
    return norm.device.type == "cuda" and not hasattr(norm, "placements")


def _backward(
    ranks: Alone,
    pack: PackedBatch,
    weights: Mapping[str, float],
    counts: Mapping[str, int],
    factor: float,
    precision: str,
    device: torch.device,
) -> dict[str, TaskLoss]:
    """Adds what one pack, its loss times `factor`, gives to the gradients; returns its losses by task."""
    static = device.type == "cuda" or bool(getattr(ranks.model, "static_shapes", False))
    inputs = Inputs.of(pack, device, static=static)
    with autocast(precision, device):
        made = ranks.losses(inputs, counts)
    if made:
        terms = [weights[name] / counts[name] * task.sum for name, task in made.items()]
        # DDP and FSDP take the mean over ranks, and the sum is wanted
        torch.autograd.backward(torch.stack(terms).sum() * (factor * ranks.world.size))
    return made


def counts_of(packs: Sequence[PackedBatch]) -> dict[str, int]:
    """Scored positions of `packs` by task."""
    counts: dict[str, int] = {}
    for pack in packs:
        for name, targets in pack.targets.items():
            counts[name] = counts.get(name, 0) + targets.count
    return counts
