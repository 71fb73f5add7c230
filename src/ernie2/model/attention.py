"""Attention inside each sequence of a pack, and the one function that picks the kernel for it.

T tokens in the pack · S sequences · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to the group's longest L · R = Σ n · L rows of all groups

Three kernels, chosen by `choose_kernel` once a batch for all layers:

    dense    CUDA; rows that are full, or a few runs of sequences of one length: `scaled_dot_product_attention` on each
             run as it lies, without mask or copy, cuDNN first
    packed   CUDA, 16 bits, nothing dropped: `varlen_attn` over the pack as it lies
    padded   everything else, attention dropout on mixed lengths included: sequences of similar length are padded to
             one length and go through `scaled_dot_product_attention` group by group

Measured on one H100 with 65,536 tokens, 12 layers, forward and backward: dense rows of 512 took 18.9 ms, packed mixed
lengths 26.0 ms (less work, and yet). Only the packed kernel is traced by a compiler; the shapes of the others follow
the lengths and would ask for a recompilation a batch. So a run compiles its layer once for every kernel it meets.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ernie2.model.dropped_attention import attend_dropped
from ernie2.model.inputs import Inputs
from ernie2.model.levers import LEVERS, enabled

LEVERS["dropped_attention"] = "attention dropout on a CPU by matrix products over groups, not by torch's math path"

_ROW_COST = 64
"""What carrying one padded row costs, in units of attention pairs (queries × keys); an estimate."""
_GROUP_COST = 10_000
"""What one more group costs, in the same units."""
_MOST_RUNS = 4
"""Runs of equal lengths the dense kernel is called for; each is a call of its own."""

Kernel = Literal["packed", "dense", "padded"]


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences padded to one length. `mask` (n, 1, 1, L) bool, true at real keys; None where all have length L."""

    sequences: int
    length: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class Padded:
    """How the tokens of a pack lie in padded groups.

    `gather` (R,) int64: the token of each row, the sequence's last one where the row is padding. `scatter` (T,) int64:
    the row of each token. `real` (R, 1) bool, false at padding; None where nothing is padding.
    """

    groups: tuple[Group, ...]
    gather: Tensor
    scatter: Tensor
    real: Tensor | None

    @property
    def sizes(self) -> list[int]:
        """Rows of each group."""
        return [group.sequences * group.length for group in self.groups]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about where sequences begin and end.

    `starts` (S + 1,) int32 and `longest` are for the packed kernel, `runs` (sequences, length) for the dense one,
    `padded` for padded groups.
    """

    kernel: Kernel
    starts: Tensor
    longest: int
    runs: tuple[tuple[int, int], ...] = ()
    padded: Padded | None = None


def choose_kernel(
    device: str, lengths: Sequence[int], dropout: float, dtype: torch.dtype, head_width: int, has_packed: bool
) -> Kernel:
    """Which kernel attends: a function of these facts alone, and never one that would ignore `dropout`.

    `device`: "cuda", "cpu", …; `dropout`: share of attention weights to be dropped; `dtype`: that of queries, keys and
    values; `has_packed`: whether this torch and this card have the packed kernel.
    """
    if device != "cuda":
        return "padded"
    if len(runs_of(lengths)) <= _MOST_RUNS:
        return "dense"
    fits = dtype in (torch.bfloat16, torch.float16) and head_width % 8 == 0 and head_width <= 256
    return "packed" if has_packed and fits and dropout == 0.0 else "padded"


def runs_of(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Neighbours of one length as (sequences, length): [5, 5, 2, 5] -> ((2, 5), (1, 2), (1, 5))."""
    sizes = np.asarray(lengths, dtype=np.int64)
    begins = np.flatnonzero(np.concatenate([[True], sizes[1:] != sizes[:-1]]))
    counts = np.diff(np.concatenate([begins, [len(sizes)]]))
    return tuple(zip(counts.tolist(), sizes[begins].tolist(), strict=True))


def plan_attention(inputs: Inputs, dtype: torch.dtype, head_width: int, dropout: float = 0.0) -> AttentionPlan:
    """Picks the kernel for this batch and lays its sequences out for it; arguments as in `choose_kernel`."""
    device = inputs.tokens.device
    has_packed = device.type == "cuda" and _packed_kernel() is not None and _ampere(device)
    kernel = choose_kernel(device.type, inputs.lengths, dropout, dtype, head_width, has_packed)
    if kernel == "packed":
        torch._dynamo.mark_dynamic(inputs.starts, 0)  # a compiled layer serves any number of sequences
        return AttentionPlan(kernel, inputs.starts, inputs.longest)
    if kernel == "dense":
        return AttentionPlan(kernel, inputs.starts, inputs.longest, runs=runs_of(inputs.lengths))
    return AttentionPlan(kernel, inputs.starts, inputs.longest, padded=_pad(inputs.lengths, device))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What matrix products with `tensor` run in here: the autocast dtype where autocast is on, else its own."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def attend(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float = 0.0) -> Tensor:
    """Softmax attention of every token over the tokens of its own sequence.

    qkv (T, 3H), the queries, keys and values of a token side by side -> (T, H), same dtype. `dropout` is the share of
    attention weights dropped, 0 outside training.
    """
    if plan.kernel == "packed":
        return _attend_packed(qkv, heads, plan, dropout)
    mixed: Tensor = _attend_untraced(qkv, heads, plan, dropout)
    return mixed


def _attend_packed(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float) -> Tensor:
    assert dropout == 0.0, "the packed kernel drops nothing; plan_attention was not told of the dropout"
    tokens, width = qkv.shape
    kernel = _packed_kernel()
    assert kernel is not None
    query, key, value = qkv.view(tokens, 3, heads, width // (3 * heads)).unbind(1)  # each (T, N, D)
    return kernel(query, key, value, plan.starts, plan.longest).reshape(tokens, width // 3)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_untraced(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float) -> Tensor:
    """Takes the whole plan: of what it reads from it a compiler must not know, or it would compile for every batch."""
    if plan.kernel == "dense":
        return _attend_dense(qkv, heads, plan.runs, dropout)
    assert plan.padded is not None
    return _attend_padded(qkv, heads, plan.padded, dropout)


def _attend_dense(qkv: Tensor, heads: int, runs: Sequence[tuple[int, int]], dropout: float) -> Tensor:
    """Every run is a view of the pack: nothing is copied before the kernel."""
    width = qkv.shape[1]
    outputs = []
    with torch.autocast(qkv.device.type, enabled=False), _cudnn_first(qkv.device):
        for (count, length), part in zip(runs, torch.split(qkv, [n * each for n, each in runs]), strict=True):
            shape = (count, length, 3, heads, width // (3 * heads))
            query, key, value = (each.transpose(1, 2) for each in part.view(shape).unbind(2))  # each (n, N, L, D)
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            outputs.append(mixed.transpose(1, 2).reshape(-1, width // 3))  # (n · L, H)
    return torch.cat(outputs) if len(outputs) > 1 else outputs[0]


def _attend_padded(qkv: Tensor, heads: int, padded: Padded, dropout: float) -> Tensor:
    if dropout and qkv.device.type == "cpu" and enabled("dropped_attention"):
        return attend_dropped(qkv, heads, padded, dropout)
    width = qkv.shape[1]
    head_width = width // (3 * heads)
    rows = reordered(qkv, padded.gather, padded.scatter, None)  # (R, 3H)
    outputs = []
    with torch.autocast(qkv.device.type, enabled=False):
        if qkv.device.type == "cpu":
            rows = rows.float()  # the bf16 kernel of CPUs is slower than the fp32 one, several times so backwards
        for group, part in zip(padded.groups, torch.split(rows, padded.sizes), strict=True):
            shape = (group.sequences, group.length, 3, heads, head_width)
            query, key, value = (each.transpose(1, 2) for each in part.view(shape).unbind(2))  # each (n, N, L, D)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=group.mask, dropout_p=dropout)
            outputs.append(mixed.transpose(1, 2).reshape(-1, width // 3))  # (n · L, H)
    return reordered(torch.cat(outputs).to(qkv.dtype), padded.scatter, padded.gather, padded.real)


def _pad(lengths: Sequence[int], device: torch.device) -> Padded:
    sizes = np.asarray(lengths, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.argsort(sizes, kind="stable")
    groups, gathers, reals = [], [], []
    for begin, end in group_bounds(sizes[order].tolist()):
        members = order[begin:end]
        length = int(sizes[members[-1]])
        steps = np.arange(length)
        real = steps < sizes[members, None]  # (n, L)
        gathers.append(starts[members, None] + np.minimum(steps, sizes[members, None] - 1))
        reals.append(real)
        mask = None if real.all() else torch.from_numpy(real)[:, None, None, :].to(device)
        groups.append(Group(len(members), length, mask))
    gather = np.concatenate([part.reshape(-1) for part in gathers])
    kept = np.concatenate([part.reshape(-1) for part in reals])
    scatter = np.empty(int(starts[-1]), dtype=np.int64)
    scatter[gather[kept]] = np.flatnonzero(kept)
    real_rows = None if kept.all() else torch.from_numpy(kept)[:, None].to(device)
    return Padded(tuple(groups), torch.from_numpy(gather).to(device), torch.from_numpy(scatter).to(device), real_rows)


def group_bounds(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts ascending `lengths` into runs, each padded to its last, so that the least work is done.

    A run of n sequences padded to L costs n · L · (L + row cost) + group cost; the sum is made least exactly, by
    dynamic programming over the distinct lengths. [20, 20, 190] -> [(0, 2), (2, 3)].
    """
    distinct, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])  # ends[j]: sequences among the first j distinct lengths
    least = np.zeros(len(ends))  # least[j]: least work for those
    cut = np.zeros(len(ends), dtype=np.int64)  # cut[j]: where their last run begins
    for j, length in enumerate(distinct.tolist(), start=1):
        work = least[:j] + (ends[j] - ends[:j]) * float(length * (length + _ROW_COST)) + _GROUP_COST
        cut[j] = work.argmin()
        least[j] = work[cut[j]]
    bounds = []
    j = len(distinct)
    while j:
        bounds.append((int(ends[cut[j]]), int(ends[j])))
        j = int(cut[j])
    return bounds[::-1]


class _Reordered(torch.autograd.Function):
    """Rows of a matrix by index, whose gradient is rows by the reverse index: no sums, so the same on any threads.

    Only where the two indices undo each other on the real tokens and the gradient of what `index` repeats is zero, as
    it is at padding, which is masked as a key and never read as a query.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None) -> Tensor:
        """rows (A, W), index (B,), reverse (A,), real (A, 1) bool or None -> (B, W)."""
        ctx.reverse, ctx.real = reverse, real
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """gradient (B, W) -> (A, W), zero where `real` is false."""
        rows = gradient.index_select(0, ctx.reverse)
        return rows if ctx.real is None else rows.mul_(ctx.real), None, None, None


def reordered(rows: Tensor, index: Tensor, reverse: Tensor, real: Tensor | None = None) -> Tensor:
    """rows (A, W), index (B,) -> (B, W); `reverse` (A,) undoes `index` wherever `real` (A, 1) is true or None."""
    picked: Tensor = _Reordered.apply(rows, index, reverse, real)  # type: ignore[no-untyped-call]
    return picked


PackedKernel = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


@cache
def _packed_kernel() -> PackedKernel | None:
    """`varlen_attn` of this torch, adapted; None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return adapt_packed(varlen_attn)


def _ampere(device: torch.device) -> bool:
    """Whether the card is one FlashAttention has kernels for."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cudnn_first(device: torch.device) -> AbstractContextManager[object]:
    """On CUDA, tries cuDNN's kernel first and torch's others where it has none for these shapes or dtypes."""
    if device.type != "cuda":
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    preferred: AbstractContextManager[object] = sdpa_kernel(order, set_priority=True)
    return preferred


def adapt_packed(varlen_attn: Callable[..., Any]) -> PackedKernel:
    """`varlen_attn` of any torch as (query, key, value, starts, longest) -> output, each (T, N, D), full attention.

    Its signature changes between releases: full attention is asked for by `is_causal=False` where there is such a
    parameter (2.10), and is the default where a window took its place (2.11 and later).
    """
    extra: dict[str, Any] = {"is_causal": False} if "is_causal" in inspect.signature(varlen_attn).parameters else {}

    def kernel(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int) -> Tensor:
        mixed = varlen_attn(query, key, value, starts, starts, longest, longest, **extra)
        assert isinstance(mixed, Tensor)  # a pair only where asked for
        return mixed

    return kernel
