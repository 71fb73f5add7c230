"""One optimiser step: accumulate the packs of a global batch, unscale, clip, step.

The loss of a step is Σ_t w_t · (sum_t / count_t) with counts over the whole global batch, known before the first
backward; so splitting a batch into packs, packs among ranks, or saying a task's labels twice, changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._triton import has_triton

from ernie2.batches.batch import PackedBatch
from ernie2.batches.order import seed_of
from ernie2.errors import ConfigError
from ernie2.model.inputs import Inputs
from ernie2.training.parallel import Parallelism, SingleProcess, full_tensor

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
"""Precision -> the dtype of matrix products."""
_TENSOR_CORES = (7, 0)
"""The compute capability from which a card has tensor cores, for fp16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """What all steps of a training have in common.

    `weights`: of each task's mean loss in the sum; `max_grad_norm`: the largest global norm; `precision`: "bf16",
    "fp16" or "fp32"; `scale`: that of the loss in fp16, which learns how each step went; `parallelism`: how ranks
    train the model together, default a single process.
    """

    weights: Mapping[str, float]
    max_grad_norm: float
    precision: str
    device: torch.device
    scale: LossScale | None = None
    parallelism: Parallelism | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalBatch:
    """The packs of one step on this rank, as many as any other rank has.

    `dropout_key`: with a pack's number, the seed of its dropout; `counts`: scored positions by task, over all ranks;
    `numbers`: the numbers of `packs` in the step.
    """

    packs: Sequence[PackedBatch]
    dropout_key: tuple[str | int, ...]
    counts: Mapping[str, int]
    numbers: Sequence[int]

    @staticmethod
    def of(packs: Sequence[PackedBatch], dropout_key: tuple[str | int, ...]) -> GlobalBatch:
        """Return the batch of a single process, which has all packs; they are numbered from 0."""
        return GlobalBatch(packs=packs, dropout_key=dropout_key, counts=counts_of(packs), numbers=range(len(packs)))


@dataclass(frozen=True, slots=True)
class StepResult:
    """Per task over the global batch: summed loss and number correct (0-d tensors), count; and the norm before
    clipping. Where `finite` is false nothing was changed: parameters and moments are those before the step.
    `loss_scale`: what the loss was multiplied by, 1 but in fp16.
    """

    losses: Mapping[str, Tensor]
    correct: Mapping[str, Tensor]
    counts: Mapping[str, int]
    grad_norm: Tensor
    finite: FiniteCheck
    loss_scale: float = 1.0

    @property
    def skipped(self) -> bool:
        """Whether a loss or gradient was not finite; on CUDA this waits for the step where it was not scaled."""
        return not self.finite

    @property
    def bad_losses(self) -> list[str]:
        """The tasks whose loss is not finite."""
        return [name for name, loss in self.losses.items() if not math.isfinite(float(loss))]

    @property
    def overflow(self) -> bool:
        """Whether only a gradient is not finite, and in fp16 a smaller scale of the loss can still mend that."""
        return self.skipped and self.loss_scale > MIN_SCALE and not self.bad_losses


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
    """Seeds dropout from a key such as (seed, step, pack): no state needs saving, and any group size agrees."""
    torch.manual_seed(seed_of(*key) & 0x7FFF_FFFF_FFFF_FFFF)


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: GlobalBatch,
    settings: StepSettings,
    lr: float,
) -> StepResult:
    """Forward and backward over `batch`, then one clipped optimiser step at rate `lr`.

    Heads without targets are untouched. The result is that of the whole batch, the same on all ranks. Where a loss or
    a gradient is not finite the optimiser does nothing; on CUDA the device decides that by itself.
    """
    scale, parallelism = settings.scale, settings.parallelism or SingleProcess(model)
    factor, device = 1.0 if scale is None else scale.value, settings.device
    static = device.type == "cuda" or bool(getattr(parallelism.model, "static_shapes", False))
    optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    correct: dict[str, Tensor] = {}
    for place, (number, pack) in enumerate(zip(batch.numbers, batch.packs, strict=True), 1):
        seed_dropout(*batch.dropout_key, number)
        with parallelism.gradient_sync(last_pack=place == len(batch.packs)):
            with autocast(settings.precision, device):
                computed = parallelism.losses(Inputs.from_batch(pack, device, static=static), batch.counts)
            if computed:
                terms = [settings.weights[name] / batch.counts[name] * task.sum for name, task in computed.items()]
                # DDP and FSDP take the mean over ranks, and the sum is wanted
                torch.autograd.backward(torch.stack(terms).sum() * (factor * parallelism.group.size))
        for name, task in computed.items():
            total = task.sum.detach()
            losses[name] = losses[name] + total if name in losses else total
            right = torch.as_tensor(task.correct)
            correct[name] = correct[name] + right if name in correct else right
    losses, correct = parallelism.all_reduce(losses), parallelism.all_reduce(correct)
    if scale is not None:
        torch._foreach_mul_([p.grad for p in model.parameters() if p.grad is not None], 1 / factor)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    grad_norm = full_tensor(norm)
    finite = FiniteCheck(losses, grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = lr
    if scale is None and optimizer.defaults.get("fused") and decided_on_device(norm):
        optimizer.found_inf = finite.bad  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
        return StepResult(losses, correct, batch.counts, grad_norm, finite)
    if scale is not None:
        scale.update(bool(finite))
    if finite:
        optimizer.step()
    return StepResult(losses, correct, batch.counts, grad_norm, finite, factor)


def decided_on_device(norm: Tensor) -> bool:
    """Whether the fused optimiser skips a step that is not finite on the device, so that the host need not wait.

    It cannot where parameters are sharded; there a step waits for the norm.
    """
    return norm.device.type == "cuda" and not hasattr(norm, "placements")


def counts_of(packs: Sequence[PackedBatch]) -> dict[str, int]:
    """Scored positions of `packs` by task."""
    counts: dict[str, int] = {}
    for pack in packs:
        for name, targets in pack.targets.items():
            counts[name] = counts.get(name, 0) + targets.count
    return counts


class FiniteCheck:
    """Of summed losses by task and the norm of all gradients (0-d tensors, one device): whether all are finite.

    `bad` is the answer on the device, 0-d float32, 1 where something is not finite: what a fused optimiser takes as
    `found_inf` and then changes nothing. From CUDA the answer travels to the host behind the work queued so far;
    `bool()` waits for it, and asked one step later it waits for nothing. Elsewhere it is `known` at once.
    """

    def __init__(self, losses: Mapping[str, Tensor], grad_norm: Tensor) -> None:
        good = grad_norm.isfinite()
        if losses:
            good = good & torch.stack(list(losses.values())).isfinite().all()
        self.bad = (~good).float()
        self._host = self.bad.to("cpu", non_blocking=True)
        self._arrived: torch.Event | None = None
        if self.bad.device.type == "cuda":
            self._arrived = torch.Event("cuda")
            self._arrived.record()

    @property
    def known(self) -> bool:
        """Whether `bool()` waits for nothing."""
        return self._arrived is None or self._arrived.query()

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return not bool(self._host)


START, GROWTH, BACKOFF = 102_400.0, 2.0, 0.8
GOOD_STEPS, BAD_STEPS = 100, 2
MIN_SCALE = 1.0
"""A loss scaled by no more than this that still overflows is not a matter of scale."""


@dataclass
class LossScale:
    """What a loss is multiplied by before the backward pass, and how many steps in a row went well or badly since.

    × 2 after 100 good steps in a row, × 0.8 after 2 bad ones in a row, never below 1. A step is bad where a gradient is
    not finite; it changes no parameter.
    """

    value: float = START
    good: int = 0
    bad: int = 0

    def update(self, finite: bool) -> None:
        """Adapt to whether the gradients of one step were finite."""
        self.good, self.bad = (self.good + 1, 0) if finite else (0, self.bad + 1)
        if self.good == GOOD_STEPS:
            self.value, self.good = self.value * GROWTH, 0
        if self.bad == BAD_STEPS:
            self.value, self.bad = max(MIN_SCALE, self.value * BACKOFF), 0

    def state(self) -> dict[str, Any]:
        """As JSON values, which come back exactly."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.value, self.good, self.bad = state["value"], state["good"], state["bad"]


class Interval:
    """Sums between two lines of metrics.jsonl; read from the device only when a line is due."""

    def __init__(self, note: str = "") -> None:
        self.note = note
        self._losses: dict[str, Tensor] = {}
        self._correct: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norm: Tensor | None = None
        self._rate, self._tokens, self.steps, self.skipped = 0.0, 0, 0, 0
        self._began = time.monotonic()

    def add(self, result: StepResult, rate: float, tokens: int) -> None:
        """Add a step; what it gave stays on its device, since a value that comes from the host would be waited for."""
        self._rate, self._tokens, self.steps = rate, self._tokens + tokens, self.steps + 1
        if result.skipped:  # its losses may be as little finite as its gradients
            self.skipped += 1
            return
        for name, loss in result.losses.items():
            correct = result.correct[name]
            self._losses[name] = self._losses[name] + loss if name in self._losses else loss
            self._correct[name] = self._correct[name] + correct if name in self._correct else correct
            self._counts[name] = self._counts.get(name, 0) + result.counts[name]
        norm = result.grad_norm
        self._norm = norm if self._norm is None else torch.maximum(self._norm, norm)

    def line(self) -> dict[str, Any]:
        """Means over the interval; `grad_norm` is the largest in it, before clipping."""
        loss = {name: float(total) / self._counts[name] for name, total in self._losses.items()}
        self.note = " ".join(f"{name} {value:.2f}" for name, value in loss.items())
        return {
            "lr": self._rate,
            "grad_norm": 0.0 if self._norm is None else float(self._norm),
            "tokens_per_second": round(self._tokens / max(time.monotonic() - self._began, 1e-9), 1),
            "loss": loss,
            "accuracy": {name: int(total) / self._counts[name] for name, total in self._correct.items()},
            "count": dict(self._counts),
            "skipped": self.skipped,
        }
