"""The one function that picks the attention kernel of a batch, and the one that runs it.

T tokens in the pack · R rows that ask, all T or the scored ones · S sequences · N heads · H hidden

Three kernels, chosen by `choose_kernel` once a batch for all layers:

    dense    CUDA; full rows, all as long as sequences may be: one group of `scaled_dot_product_attention` on the pack
             as it lies, without mask or copy, cuDNN first. Of one run such packs have one shape, so cuDNN makes one
             plan; other equal lengths come by chance, with a shape and a plan of their own each, and rarely twice
    packed   CUDA, 16 bits, nothing dropped: `varlen_attn` over the pack as it lies
    padded   everything else, attention dropout on mixed lengths included: sequences of similar length are padded to
             one length and go through `scaled_dot_product_attention`, group by group. On a CPU, where all tokens ask,
             matrix products take its place

Only the packed kernel is traced by a compiler; the shapes of the others follow the lengths and would ask for a
recompilation a batch. So a run compiles its layer once for every kernel it meets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ernie2.config.settings import EncoderSettings
from ernie2.model.attention import fused
from ernie2.model.attention.groups import Group, Groups, attend_groups, equal_groups, pad_groups
from ernie2.model.attention.products import ProductPlan, attend_products, plan_products
from ernie2.model.inputs import Inputs
from ernie2.model.optimizations import is_enabled
from ernie2.model.scored_rows import ScoredRows

Kernel = Literal["packed", "dense", "padded"]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What every layer needs to know about where sequences begin and end.

    `dropout`: share of attention weights dropped. `angles`: those by which queries and keys are turned, as of
    `rotary_angles`; None where positions are not rotary. For the packed kernel: `starts` (S + 1,) int32, `longest` and
    `packed`, the kernel itself. For the others: `groups`, and `products` where matrix products take their place.
    """

    kernel: Kernel
    heads: int
    starts: Tensor
    longest: int
    dropout: float = 0.0
    angles: Tensor | None = None
    packed: Callable[..., Any] | None = None
    groups: Groups | None = None
    products: ProductPlan | None = None


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
    `dtype`: that of queries, keys and values; `has_packed`: whether this card has the packed kernel.
    """
    if device != "cuda":
        return "padded"
    if len(lengths) > 1 and min(lengths) == longest:
        return "dense"
    fits = dtype in (torch.bfloat16, torch.float16) and head_width % 8 == 0 and head_width <= 256
    return "packed" if has_packed and fits and dropout == 0.0 else "padded"


def plan_attention(
    inputs: Inputs, dtype: torch.dtype, settings: EncoderSettings, training: bool, rows: ScoredRows | None = None
) -> AttentionPlan:
    """Picks the kernel for this batch and lays its sequences, and the scored `rows` of the last layer, out for it.

    `dtype`: that of queries, keys and values. Attention weights are dropped in `training` only.
    """
    device, head_width = inputs.tokens.device, settings.hidden // settings.heads
    dropout = settings.attention_dropout if training else 0.0
    has_packed = device.type == "cuda" and fused.has_flash_kernels(device)
    kernel = choose_kernel(device.type, inputs.lengths, inputs.longest, dropout, dtype, head_width, has_packed)
    angles = rotary_angles(inputs.positions, head_width) if settings.positions == "rotary" else None
    plan = partial(AttentionPlan, kernel, settings.heads, inputs.starts, inputs.longest, dropout, angles)
    if kernel == "packed":
        torch._dynamo.mark_dynamic(inputs.starts, 0)  # a compiled layer serves any number of sequences
        return plan(packed=fused.packed_kernel())  # here, where no compiler looks
    row_starts = None if rows is None else rows.host_starts
    if kernel == "dense":
        return plan(groups=equal_groups(inputs.lengths, device, row_starts))
    groups = pad_groups(inputs.lengths, device, row_starts)
    by_products = device.type == "cpu" and is_enabled("attention_products")
    return plan(groups=groups, products=plan_products(groups, settings.heads) if by_products else None)


def padded_batch_plan(mask: Tensor, settings: EncoderSettings) -> AttentionPlan:
    """The plan of a padded batch of which nothing is dropped: mask (B, L), 0 at padding, of tokens (B · L, H)."""
    texts, length = mask.shape
    group = Group(texts, length, mask[:, None, None, :].bool())
    angles = None
    if settings.positions == "rotary":
        positions = torch.arange(length, device=mask.device).expand(texts, length).reshape(-1)
        angles = rotary_angles(positions, settings.hidden // settings.heads)
    groups = Groups((group,), None, None)
    return AttentionPlan("padded", settings.heads, mask, length, angles=angles, groups=groups)


def attend_all(qkv: Tensor, plan: AttentionPlan) -> Tensor:
    """`attend` for all tokens: qkv (T, 3H), the queries, keys and values of a token side by side -> (T, H)."""
    if plan.products is not None:
        mixed: Tensor = _attend_products(qkv, plan)
        return mixed
    query, key, value = qkv.chunk(3, 1)
    return attend(query, key, value, plan)


def attend(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
    """Softmax attention of every row that asks over the tokens of its own sequence.

    query (T, H), or (R, H) of scored `rows`, key and value (T, H) -> as query, same dtype.
    """
    if plan.packed is None:
        mixed: Tensor = _attend_groups(query, key, value, plan, rows)
        return mixed
    starts = plan.starts if rows is None else rows.starts
    query, key, value = (
        each.view(len(each), plan.heads, -1) for each in (query, key, value)
    )  # (R, N, D), two (T, N, D)
    attended: Tensor = plan.packed(query, key, value, starts, plan.starts, plan.longest, plan.longest)
    return attended.flatten(1)


# These two take the whole plan, so that a compiler does not see the lengths in it and compile for every batch.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_products(qkv: Tensor, plan: AttentionPlan) -> Tensor:
    assert plan.products is not None
    return attend_products(qkv, plan.products, plan.dropout)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_groups(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, rows: ScoredRows | None) -> Tensor:
    assert plan.groups is not None
    queries = plan.groups.tokens if rows is None else plan.groups.scored
    cudnn_first = plan.kernel == "dense" or rows is not None
    with (
        torch.autocast(query.device.type, enabled=False),
        fused.sdpa_kernels(query.device, plan.dropout, cudnn_first),
    ):
        return attend_groups(query, key, value, plan.heads, plan.groups, queries, plan.dropout)


def rotary_angles(positions: Tensor, head_width: int) -> Tensor:
    """positions (T,) -> cosines and sines (2, T, 1, D / 2) float32; pair i turns by position / 10,000^(2 i / D).

    Rotary positions: queries and keys are turned by angles that grow with the position (Su et al., arXiv 2104.09864).
    """
    rates = 10_000.0 ** (-torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width)
    angles = positions[:, None, None].float() * rates
    return torch.stack([angles.cos(), angles.sin()])


def rotate(rows: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs (i, i + D / 2) of every head: rows (T, H), angles (2, T, 1, D / 2) -> (T, H), same dtype."""
    cosine, sine = angles
    low, high = rows.view(len(rows), -1, 2 * angles.shape[-1]).chunk(2, -1)  # each (T, N, D / 2)
    turned = torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)
    return turned.to(rows.dtype).flatten(1)
