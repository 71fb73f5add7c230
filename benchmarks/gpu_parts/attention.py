"""Attention kernels: time of every kernel for every mix of lengths, and the difference of its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ernie2.batches.batch import pack_sequences
from ernie2.config.settings import EncoderSettings
from ernie2.model.attention.plan import attend_all, plan_attention
from ernie2.model.inputs import Inputs
from gpu_parts.job import Job
from gpu_parts.timing import milliseconds

MIXES = {"uniform": (64, 512), "paragraph": (40, 330), "pair": (20, 110), "long": (380, 512), "full": (512, 512)}
"""Shortest and longest sequence of each mix, with a limit of 512; lengths are uniform between."""
LONGEST = 512

Kernel = Callable[[Tensor], Tensor]
"""qkv (T, 3H) -> (T, H)."""


def lengths_of(mix: str, tokens: int, longest: int = LONGEST) -> list[int]:
    """Return lengths of a mix, scaled to a limit of `longest`, with sum `tokens`; the last one is truncated."""
    low, high = (max(1, edge * longest // LONGEST) for edge in MIXES[mix])
    random, lengths = np.random.default_rng(1), list[int]()
    while sum(lengths) < tokens:
        lengths.append(min(int(random.integers(low, high + 1)), tokens - sum(lengths)))
    return lengths


def measure(job: Job) -> None:
    """Record for each kernel: forward time, forward and backward time of all layers, and relative differences."""
    first: dict[str, tuple[str, Tensor, Tensor]] = {}
    for name, switched_on, kernel_of in _kernels(job):
        with ExitStack() as stack:
            try:
                stack.enter_context(switched_on())
            except Exception as error:  # an unsupported kernel must not stop the others
                job.note("kernel", kernel=name, error=_shown(error))
                continue
            for mix in MIXES:
                lengths = lengths_of(mix, job.scale.tokens, job.scale.longest)
                full = len(set(lengths)) == 1
                if not {"dense cuDNN": full, "padded groups": not full}.get(name, True):
                    continue  # dense needs equal lengths; padded groups would pad nothing there
                try:
                    _measure_one(job, name, mix, lengths, kernel_of(lengths), first)
                except Exception as error:
                    job.note("kernel", kernel=name, mix=mix, error=_shown(error))


def _measure_one(
    job: Job, name: str, mix: str, lengths: Sequence[int], kernel: Kernel, first: dict[str, tuple[str, Tensor, Tensor]]
) -> None:
    device, scale = job.device, job.scale
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    qkv = torch.randn(scale.tokens, 3 * scale.width).to(device, dtype).requires_grad_()
    gradient = torch.randn(scale.tokens, scale.width).to(device, dtype)

    def both() -> None:
        qkv.grad = None
        kernel(qkv).backward(gradient)  # type: ignore[no-untyped-call]

    both()
    assert qkv.grad is not None
    results = (kernel(qkv).detach().float(), qkv.grad.float().clone())
    reference = first.setdefault(mix, (name, *results))
    job.note(
        "kernel",
        kernel=name,
        mix=mix,
        sequences=len(lengths),
        forward_ms=milliseconds(lambda: kernel(qkv), device, scale.repeats),
        layers=scale.layers,
        layers_ms=scale.layers * milliseconds(both, device, scale.repeats),
        compared_with=reference[0],
        relative_difference=[float((a - b).norm() / b.norm()) for a, b in zip(results, reference[1:], strict=True)],
    )


def _kernels(job: Job) -> Iterator[tuple[str, Callable[[], Any], Callable[[Sequence[int]], Kernel]]]:
    """Yield name, context that selects the kernel, and factory for given lengths."""
    packed = partial(_packed, job)
    yield "varlen FA2", _flash_by_default, packed
    yield "dense cuDNN", _dense_context(job), partial(_dense, job)
    yield "varlen cuDNN", _cudnn_for_varlen, packed
    for version in ("FA3", "FA4"):
        yield f"varlen {version}", partial(_flash_version, version), packed
    yield "padded groups", _flash_by_default, partial(_padded, job)


@contextmanager
def _flash_by_default() -> Iterator[None]:
    """torch's default choice."""
    yield


def _dense_context(job: Job) -> Callable[[], Any]:
    """Only cuDNN on a GPU; the default on a CPU."""
    return partial(sdpa_kernel, SDPBackend.CUDNN_ATTENTION) if job.device.type == "cuda" else _flash_by_default


@contextmanager
def _cudnn_for_varlen() -> Iterator[None]:
    """Make `varlen_attn` use cuDNN, through a private switch of torch."""
    from torch.nn.attention import varlen

    if not hasattr(varlen, "_should_use_cudnn"):
        raise RuntimeError(f"torch {torch.__version__} has no cuDNN kernel for varlen_attn")
    before = varlen._should_use_cudnn
    varlen._should_use_cudnn = lambda _: True
    try:
        yield
    finally:
        varlen._should_use_cudnn = before


@contextmanager
def _flash_version(version: str) -> Iterator[None]:
    """FlashAttention-3 or -4 through torch's switch, if installed."""
    from torch.nn import attention

    activate = getattr(attention, "activate_flash_attention_impl", None)
    if activate is None:
        raise RuntimeError(f"torch {torch.__version__} has no switch for {version}")
    activate(version)
    try:
        yield
    finally:
        attention.restore_flash_attention_impl()


def _packed(job: Job, lengths: Sequence[int]) -> Kernel:
    """`varlen_attn` on the pack."""
    from torch.nn.attention.varlen import varlen_attn

    scale, longest = job.scale, max(lengths)
    starts = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=job.device)

    def kernel(qkv: Tensor) -> Tensor:
        query, key, value = qkv.view(-1, 3, scale.heads, scale.head_width).unbind(1)  # each (T, N, D)
        mixed = varlen_attn(query, key, value, starts, starts, longest, longest)
        return mixed.reshape(-1, scale.width)

    return kernel


def _dense(job: Job, lengths: Sequence[int]) -> Kernel:
    """`scaled_dot_product_attention` on sequences of equal length."""
    scale = job.scale

    def kernel(qkv: Tensor) -> Tensor:
        shape = (len(lengths), lengths[0], 3, scale.heads, scale.head_width)
        query, key, value = (each.transpose(1, 2) for each in qkv.view(shape).unbind(2))  # each (S, N, L, D)
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(-1, scale.width)

    return kernel


def _padded(job: Job, lengths: Sequence[int]) -> Kernel:
    """Padded groups, as in the encoder without a packed kernel."""
    zeros = [np.zeros(length, np.int64) for length in lengths]
    pack = pack_sequences(zeros, zeros, [0] * len(lengths), {}, size=sum(lengths), longest=max(lengths), pad=0)
    inputs, scale = Inputs.from_batch(pack, job.device, static=False), job.scale
    settings = EncoderSettings(hidden=scale.width, heads=scale.heads)
    plan = plan_attention(inputs, torch.float32, settings, training=True)  # not packed
    return lambda qkv: attend_all(qkv, plan)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0].split('. ')[0]}"[:200]
