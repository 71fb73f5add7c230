"""The one function that picks the attention kernel of a batch, and the one that runs it.

T tokens in the pack · S sequences · H hidden

Three kernels, chosen by `choose_kernel` once a batch for all layers:

    dense    CUDA; full rows, all as long as sequences may be: `scaled_dot_product_attention` on the pack as it lies,
             without mask or copy, cuDNN first. Of one run such packs have one shape, so cuDNN makes one plan; other
             equal lengths come by chance, with a shape and a plan of their own each, and rarely twice
    packed   CUDA, 16 bits, nothing dropped: `varlen_attn` over the pack as it lies
    padded   everything else, attention dropout on mixed lengths included: sequences of similar length are padded to
             one length and go through `scaled_dot_product_attention`, or on a CPU matrix products, group by group

Only the packed kernel is traced by a compiler; the shapes of the others follow
the lengths and would ask for a recompilation a batch. So a run compiles its layer once for every kernel it meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ernie2.model.attention import fused
from ernie2.model.attention.padded import Group, Padded, attend_padded, pad_groups, reordered
from ernie2.model.attention.queries import padded_queries, place_queries
from ernie2.model.attention.rows import attend_row_groups
from ernie2.model.inputs import Inputs
from ernie2.model.scored_rows import ScoredRows
from ernie2.model.transfer import to_device

Kernel = Literal["packed", "dense", "padded"]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about where sequences begin and end.

    `starts` (S + 1,) int32, `longest` and `packed`, the kernel itself, are for the packed kernel, `runs` (sequences,
    length) for the dense one, `padded` for padded groups.
    """

    kernel: Kernel
    starts: Tensor
    longest: int
    runs: tuple[tuple[int, int], ...] = ()
    padded: Padded | None = None
    packed: fused.PackedKernel | None = None


def choose_kernel(
    device: str,
    lengths: Sequence[int],
    longest: int,
    dropout: float,
    dtype: torch.dtype,
    head_width: int,
    has_packed: bool,
) -> Kernel:
    """Which kernel attends: a function of these facts alone, and never one that would ignore `dropout`.

    `device`: "cuda", "cpu", …; `longest`: the limit of `lengths`; `dropout`: share of attention weights to be dropped;
    `dtype`: that of queries, keys and values; `has_packed`: whether this torch and this card have the packed kernel.
    """
    if device != "cuda":
        return "padded"
    if len(lengths) > 1 and min(lengths) == longest:
        return "dense"
    fits = dtype in (torch.bfloat16, torch.float16) and head_width % 8 == 0 and head_width <= 256
    return "packed" if has_packed and fits and dropout == 0.0 else "padded"


def plan_attention(
    inputs: Inputs, dtype: torch.dtype, head_width: int, dropout: float = 0.0, rows: ScoredRows | None = None
) -> AttentionPlan:
    """Picks the kernel for this batch and lays its sequences, and the scored `rows` of the last layer, out for it.

    The other arguments are as in `choose_kernel`.
    """
    device = inputs.tokens.device
    packed = fused.packed_kernel()  # here, where no compiler looks
    has_packed = device.type == "cuda" and packed is not None and fused.has_flash_kernels(device)
    kernel = choose_kernel(device.type, inputs.lengths, inputs.longest, dropout, dtype, head_width, has_packed)
    if kernel == "packed":
        torch._dynamo.mark_dynamic(inputs.starts, 0)  # a compiled layer serves any number of sequences
        return AttentionPlan(kernel, inputs.starts, inputs.longest, packed=packed)
    if kernel == "dense":
        return AttentionPlan(kernel, inputs.starts, inputs.longest, runs=fused.runs_of(inputs.lengths))
    padded = pad_groups(inputs.lengths, device, None if rows is None else rows.host_starts)
    return AttentionPlan(kernel, inputs.starts, inputs.longest, padded=padded)


def attend(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float = 0.0) -> Tensor:
    """Softmax attention of every token over the tokens of its own sequence.

    qkv (T, 3H), the queries, keys and values of a token side by side -> (T, H), same dtype. `dropout` is the share of
    attention weights dropped, 0 outside training.
    """
    if plan.kernel == "packed":
        assert dropout == 0.0, "the packed kernel drops nothing; plan_attention did not get the dropout"
        assert plan.packed is not None
        return fused.attend_packed(qkv, heads, plan.packed, plan.starts, plan.longest)
    mixed: Tensor = _attend_untraced(qkv, heads, plan, dropout)
    return mixed


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_untraced(qkv: Tensor, heads: int, plan: AttentionPlan, dropout: float) -> Tensor:
    """Takes the whole plan, so that a compiler does not see the lengths in it and compile for every batch."""
    if plan.kernel == "dense":
        return fused.attend_dense(qkv, heads, plan.runs, dropout)
    assert plan.padded is not None
    return attend_padded(qkv, heads, plan.padded, dropout)


def attend_rows(
    query: Tensor, memory: Tensor, heads: int, plan: AttentionPlan, rows: ScoredRows, dropout: float = 0.0
) -> Tensor:
    """Softmax attention of scored rows over the tokens of their own sequences.

    query (R, H) of `rows`, memory (T, 2H), the keys and values of a token side by side -> (R, H), same dtype.
    """
    if plan.kernel == "packed":
        assert dropout == 0.0, "the packed kernel drops nothing; plan_attention did not get the dropout"
        assert plan.packed is not None
        return fused.attend_packed_rows(query, memory, heads, plan.packed, rows.starts, plan.starts, plan.longest)
    mixed: Tensor = _attend_rows_untraced(query, memory, heads, plan, rows, dropout)
    return mixed


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_rows_untraced(
    query: Tensor, memory: Tensor, heads: int, plan: AttentionPlan, rows: ScoredRows, dropout: float
) -> Tensor:
    if plan.padded is None:
        groups = tuple(Group(count, length, None) for count, length in plan.runs)
        widths, arrays = place_queries(
            [group.sequences for group in groups], np.arange(len(rows.host_starts) - 1), rows.host_starts
        )
        queries = padded_queries(widths, to_device(arrays, query.device))
    else:
        assert plan.padded.queries is not None, "plan_attention did not get the rows"
        groups, queries = plan.padded.groups, plan.padded.queries
        memory = reordered(memory, plan.padded.gather, plan.padded.scatter)  # (Σ n · L, 2H)
    with torch.autocast(query.device.type, enabled=False), fused.cudnn_first(query.device, dropout):
        wide = torch.promote_types(query.dtype, torch.float32) if query.device.type == "cpu" else query.dtype
        return attend_row_groups(query.to(wide), memory.to(wide), heads, groups, queries, dropout).to(query.dtype)
