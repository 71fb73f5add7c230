"""Choose the attention kernel of a batch, and run it.

T tokens in the pack · R query rows, all T or the scored ones · S sequences · N heads · H hidden

`choose_kernel` picks one of three kernels per batch, for all layers:

    dense    CUDA; full rows, all of the maximum length: one group of `scaled_dot_product_attention` on the pack,
             without mask or copy, cuDNN first. These packs have one shape in a run, so cuDNN builds one plan. Other
             equal lengths are rare, and each would need its own plan
    packed   CUDA, 16 bits, no attention dropout: `varlen_attn` on the pack
    padded   everything else, including attention dropout on mixed lengths: sequences of similar length are padded to
             one length and go through `scaled_dot_product_attention`, group by group. On a CPU, matrix products are
             used instead if all tokens are queries

Compilers trace only the packed kernel: the shapes of the others depend on the lengths and would cause a recompilation
for every batch. So a run compiles its layer once for each kernel it uses.
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
    """Kernel and sequence boundaries of a batch, shared by all layers.

    `dropout`: share of attention weights dropped. `angles`: result of `rotary_angles`, None without rotary positions.
    For the packed kernel: `starts` (S + 1,) int32, `longest`, and the kernel function `packed`. For the others:
    `groups`, and `products` if matrix products are used.
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
    """Return the kernel for a batch; never one that ignores `dropout`.

    `device`: "cuda", "cpu", …; `longest`: the limit of `lengths`; `dropout`: share of attention weights to drop;
    `dtype`: that of queries, keys and values; `has_packed`: whether this GPU has the packed kernel.
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
    """Choose the kernel and compute the layout of the sequences and of the scored `rows` of the last layer.

    `dtype`: that of queries, keys and values. Attention dropout applies only in `training`.
    """
    device, head_width = inputs.tokens.device, settings.hidden // settings.heads
    dropout = settings.attention_dropout if training else 0.0
    has_packed = device.type == "cuda" and fused.has_flash_kernels(device)
    kernel = choose_kernel(device.type, inputs.lengths, inputs.longest, dropout, dtype, head_width, has_packed)
    angles = rotary_angles(inputs.positions, head_width) if settings.positions == "rotary" else None
    plan = partial(AttentionPlan, kernel, settings.heads, inputs.starts, inputs.longest, dropout, angles)
    if kernel == "packed":
        torch._dynamo.mark_dynamic(inputs.starts, 0)  # a compiled layer serves any number of sequences
        return plan(packed=fused.packed_kernel())  # here, outside compiled code
    row_starts = None if rows is None else rows.host_starts
    if kernel == "dense":
        return plan(groups=equal_groups(inputs.lengths, device, row_starts))
    groups = pad_groups(inputs.lengths, device, row_starts)
    by_products = device.type == "cpu" and is_enabled("attention_products")
    return plan(groups=groups, products=plan_products(groups, settings.heads) if by_products else None)


def padded_batch_plan(mask: Tensor, settings: EncoderSettings) -> AttentionPlan:
    """Return the plan of a padded batch without dropout: mask (B, L), 0 at padding, for tokens (B · L, H)."""
    texts, length = mask.shape
    group = Group(texts, length, mask[:, None, None, :].bool())
    angles = None
    if settings.positions == "rotary":
        positions = torch.arange(length, device=mask.device).expand(texts, length).reshape(-1)
        angles = rotary_angles(positions, settings.hidden // settings.heads)
    groups = Groups((group,), None, None)
    return AttentionPlan("padded", settings.heads, mask, length, angles=angles, groups=groups)


def attend_all(qkv: Tensor, plan: AttentionPlan) -> Tensor:
    """`attend` for all tokens: qkv (T, 3H), query, key and value of each token -> (T, H)."""
    if plan.products is not None:
        mixed: Tensor = _attend_products(qkv, plan)
        return mixed
    query, key, value = qkv.chunk(3, 1)
    return attend(query, key, value, plan)


def attend(query: Tensor, key: Tensor, value: Tensor, plan: AttentionPlan, rows: ScoredRows | None = None) -> Tensor:
    """Softmax attention of every query over the tokens of its sequence.

    query (T, H), or (R, H) for scored `rows`, key and value (T, H) -> shape and dtype of query.
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


# These two take the plan as one argument, to hide the lengths from the compiler, which would recompile for every batch.
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
    """Return the angles of rotary positions (Su et al., arXiv 2104.09864).

    positions (T,) -> cosines and sines (2, T, 1, D / 2) float32 of position / 10,000^(2 i / D) for pair i.
    """
    rates = 10_000.0 ** (-torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width)
    angles = positions[:, None, None].float() * rates
    return torch.stack([angles.cos(), angles.sin()])


def rotate(rows: Tensor, angles: Tensor) -> Tensor:
    """Rotate the pairs (i, i + D / 2) of every head: rows (T, H), angles (2, T, 1, D / 2) -> (T, H), same dtype."""
    cosine, sine = angles
    low, high = rows.view(len(rows), -1, 2 * angles.shape[-1]).chunk(2, -1)  # each (T, N, D / 2)
    rotated = torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)
    return rotated.to(rows.dtype).flatten(1)
