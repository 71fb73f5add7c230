"""One optimiser step: accumulate the gradients of all packs of a global batch, unscale, clip, step.

The loss of a step is Σ_t w_t · (sum_t / count_t). The counts cover the entire global batch and are known before the
first backward pass, so the division into packs and ranks does not change the loss.
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
"""Minimum compute capability of a GPU with tensor cores, for fp16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """Settings of all steps of a run.

    `weights`: weight of each task's mean loss in the sum; `max_grad_norm`: limit on the norm of all gradients;
    `precision`: "bf16", "fp16" or "fp32"; `scale`: dynamic loss scale in fp16; `parallelism`: default a single process.
    """

    weights: Mapping[str, float]
    max_grad_norm: float
    precision: str
    device: torch.device
    scale: LossScale | None = None
    parallelism: Parallelism | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalBatch:
    """This rank's packs of a global batch; all ranks have the same number of packs.

    `dropout_key`: with the number of a pack, seeds its dropout; `counts`: scored positions by task, over
    all ranks; `numbers`: numbers of these packs in the global batch.
    """

    packs: Sequence[PackedBatch]
    dropout_key: tuple[str | int, ...]
    counts: Mapping[str, int]
    numbers: Sequence[int]

    @staticmethod
    def of(packs: Sequence[PackedBatch], dropout_key: tuple[str | int, ...]) -> LocalBatch:
        """Return the batch of a single process with all packs, numbered from 0."""
        return LocalBatch(packs=packs, dropout_key=dropout_key, counts=counts_of(packs), numbers=range(len(packs)))


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a step over the global batch. If `finite` is false, the step changed no parameter and no moment.

    By task: `losses` and `correct`, 0-d tensors summed over scored positions, and `counts`, their number. `grad_norm`:
    before clipping. `loss_scale`: factor of the loss, 1 except in fp16.
    """

    losses: Mapping[str, Tensor]
    correct: Mapping[str, Tensor]
    counts: Mapping[str, int]
    grad_norm: Tensor
    finite: FiniteCheck
    loss_scale: float = 1.0

    @property
    def skipped(self) -> bool:
        """Whether a loss or gradient was not finite; on CUDA this waits for the step (fp16 has waited already)."""
        return not self.finite

    @property
    def bad_losses(self) -> list[str]:
        """The tasks whose loss is not finite."""
        return [name for name, loss in self.losses.items() if not math.isfinite(float(loss))]

    @property
    def overflow(self) -> bool:
        """Whether an fp16 gradient overflowed with finite losses, and the loss scale can still be lowered."""
        return self.skipped and self.loss_scale > MIN_SCALE and not self.bad_losses


def choose_precision(configured: str, device: torch.device) -> str:
    """Return "bf16", "fp16" or "fp32": `configured`, or for "auto" the best one the device supports.

    That is bf16 on Ampere and later, on ROCm, and on CPUs with AVX512_BF16 or AMX; fp16 on GPUs with tensor cores
    that only emulate bf16 (V100, T4); else fp32.
    """
    if configured != "auto":
        return configured
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else "fp32"
    if device.type == "cpu":
        bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if bf16 else "fp32"
    return "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the autocast context of matrix products; parameters, statistics and losses stay fp32."""
    dtype = DTYPES[precision]
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)


def should_compile(configured: str | bool, device: torch.device) -> bool:
    """Return whether to compile: `configured`, or for "auto" true on CUDA with triton.

    Raises `ConfigError` if `configured` is true and the compiler is missing.
    """
    if configured is False or (configured == "auto" and device.type != "cuda"):
        return False
    can_compile = _has_cpp_compiler() if device.type == "cpu" else has_triton()
    if not can_compile and configured is True:
        needed = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "triton"
        raise ConfigError(
            f"train.compile=true needs {needed}, which was not found. Install it, or set train.compile=false."
        )
    return can_compile


def _has_cpp_compiler() -> bool:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True


def seed_dropout(*key: str | int) -> None:
    """Seed dropout from a key such as (seed, step, pack): no state to save, and the same on any number of ranks."""
    torch.manual_seed(seed_of(*key) & 0x7FFF_FFFF_FFFF_FFFF)


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: LocalBatch,
    settings: StepSettings,
    lr: float,
) -> StepResult:
    """Run forward and backward over `batch`, then one optimiser step with clipped gradients at rate `lr`.

    Heads without targets do not change. The result covers the entire batch and is the same on all ranks. If a loss or
    gradient is not finite, the optimiser does nothing; on CUDA this is decided on the device.
    """
    scale, parallelism = settings.scale, settings.parallelism or SingleProcess(model)
    factor, device = 1.0 if scale is None else scale.value, settings.device
    static = device.type == "cuda" or bool(getattr(parallelism.model, "static_shapes", False))
    optimizer.zero_grad(set_to_none=True)
    losses: dict[str, Tensor] = {}
    correct: dict[str, Tensor] = {}
    for position, (number, pack) in enumerate(zip(batch.numbers, batch.packs, strict=True), 1):
        seed_dropout(*batch.dropout_key, number)
        with parallelism.gradient_sync(last_pack=position == len(batch.packs)):
            with autocast(settings.precision, device):
                computed = parallelism.losses(Inputs.from_batch(pack, device, static=static), batch.counts)
            if computed:
                terms = [settings.weights[name] / batch.counts[name] * task.sum for name, task in computed.items()]
                # DDP and FSDP average over ranks; this makes it the sum
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
    if scale is None and optimizer.defaults.get("fused") and skips_on_device(norm):
        optimizer.found_inf = finite.bad  # type: ignore[attr-defined]
        optimizer.step()
        del optimizer.found_inf  # type: ignore[attr-defined]
        return StepResult(losses, correct, batch.counts, grad_norm, finite)
    if scale is not None:
        scale.update(bool(finite))
    if finite:
        optimizer.step()
    return StepResult(losses, correct, batch.counts, grad_norm, finite, factor)


def skips_on_device(norm: Tensor) -> bool:
    """Return whether the fused optimiser skips a non-finite step on the device, without a device sync.

    With sharded parameters it cannot: each step waits for the norm.
    """
    return norm.device.type == "cuda" and not hasattr(norm, "placements")


def counts_of(packs: Sequence[PackedBatch]) -> dict[str, int]:
    """Return the scored positions of `packs` by task."""
    counts: dict[str, int] = {}
    for pack in packs:
        for name, targets in pack.targets.items():
            counts[name] = counts.get(name, 0) + targets.count
    return counts


class FiniteCheck:
    """Whether summed losses by task and the norm of all gradients (0-d tensors, one device) are finite.

    `bad`: 0-d float32 on the device, 1 if one is not finite; a fused optimiser takes it as `found_inf` and then skips
    the step. On CUDA the result is copied to the host asynchronously; `bool()` waits for it, which
    is instant one step later. On other devices it is `known` at once.
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
        """Whether `bool()` returns without waiting."""
        return self._arrived is None or self._arrived.query()

    def __bool__(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return not bool(self._host)


START, GROWTH, BACKOFF = 102_400.0, 2.0, 0.8
GOOD_STEPS, BAD_STEPS = 100, 2
MIN_SCALE = 1.0
"""Lower limit of the scale; gradients that overflow at it are treated as non-finite."""


@dataclass
class LossScale:
    """Dynamic loss scale for fp16: factor of the loss before the backward pass, and numbers of good and bad steps.

    × 2 after 100 good steps in a row, × 0.8 after 2 bad ones in a row, never below 1. A step is bad if a gradient is
    not finite; it changes no parameter.
    """

    value: float = START
    good: int = 0
    bad: int = 0

    def update(self, finite: bool) -> None:
        """Adapt the scale after a step whose gradients were finite or not."""
        self.good, self.bad = (self.good + 1, 0) if finite else (0, self.bad + 1)
        if self.good == GOOD_STEPS:
            self.value, self.good = self.value * GROWTH, 0
        if self.bad == BAD_STEPS:
            self.value, self.bad = max(MIN_SCALE, self.value * BACKOFF), 0

    def state(self) -> dict[str, Any]:
        """Return it as JSON values, without loss of precision."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state()`."""
        self.value, self.good, self.bad = state["value"], state["good"], state["bad"]


class Interval:
    """Sums over the steps between two lines of metrics.jsonl; read from the device only for a line.

    `note`: mean losses, for the progress bar.
    """

    def __init__(self, note: str = "") -> None:
        self.note = note
        self._losses: dict[str, Tensor] = {}
        self._correct: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norm: Tensor | None = None
        self._rate, self._tokens, self.steps, self.skipped = 0.0, 0, 0, 0
        self._began = time.monotonic()

    def add(self, result: StepResult, rate: float, tokens: int) -> None:
        """Add a step. Its tensors stay on the device, because reading them would wait for the step."""
        self._rate, self._tokens, self.steps = rate, self._tokens + tokens, self.steps + 1
        if result.skipped:  # its losses may not be finite either
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
        """Return the means over the interval; `grad_norm` is the largest in it, before clipping."""
        loss = {name: float(total) / self._counts[name] for name, total in self._losses.items()}
        self.note = ", ".join(f"{name} {value:.2f}" for name, value in loss.items())
        return {
            "lr": self._rate,
            "grad_norm": 0.0 if self._norm is None else float(self._norm),
            "tokens_per_second": round(self._tokens / max(time.monotonic() - self._began, 1e-9), 1),
            "loss": loss,
            "accuracy": {name: int(total) / self._counts[name] for name, total in self._correct.items()},
            "count": dict(self._counts),
            "skipped": self.skipped,
        }
