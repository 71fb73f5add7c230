"""Attention on a CPU by matrix products over padded groups, with scores and softmax in float32.

torch's fused CPU kernel reaches a fifth of the rate of a 16-bit matrix product (0.15 against 0.75 TFLOP/s on two cores)
and has no dropout. This form saves the attention weights of a layer, N · Σ n · L² numbers, for the backward pass.

T tokens in the pack · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to the group's longest L · R = Σ n · L rows of all groups
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ernie2.model.dropout import apply_keep_mask, draw_keep_mask, keep_scale

if TYPE_CHECKING:
    from ernie2.model.attention.groups import Groups


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """Index maps between pack order (by token) and group order (by head), in units of the D numbers of a head.

    The pack is (T, parts, N); the groups are concatenated, each (parts, n, N, L). `gather` (parts · N · R,) int64: the
    place in the pack of each place in the groups; at padding that of the last token. `scatter` (T · parts · N,) int64:
    the place in the groups of each place in the pack.
    """

    gather: Tensor
    scatter: Tensor

    @classmethod
    def build(cls, groups: Groups, heads: int, parts: int) -> HeadLayout:
        """Return the layout of `parts` (3: queries, keys and values; 1: outputs) for `heads` heads."""
        assert groups.tokens is not None
        head, part = torch.arange(heads), torch.arange(parts)
        gathers, places, begin = [], [], 0
        sizes = [group.sequences * group.length for group in groups.groups]
        for group, tokens in zip(groups.groups, torch.split(groups.tokens.gather, sizes), strict=True):
            n, length = group.sequences, group.length
            tokens = tokens.view(1, n, 1, length)
            shape = (parts, n, heads, length)
            gathers.append((tokens * parts + part.view(-1, 1, 1, 1)) * heads + head.view(-1, 1))
            place = torch.arange(begin, begin + parts * n * heads * length).view(shape)
            places.append(place.permute(1, 3, 0, 2).reshape(n * length, parts, heads))
            begin += parts * n * heads * length
        gather = torch.cat([each.reshape(-1) for each in gathers])
        return cls(gather, torch.cat(places).index_select(0, groups.tokens.scatter).reshape(-1))


@dataclass(frozen=True, slots=True)
class ProductPlan:
    """Layout of a batch for all layers.

    `groups`: (sequences, length, bias); bias (n · N, 1, L) float32 is -inf at padding and 0 elsewhere, None without
    padding. `qkv`, `out`: layouts of inputs and outputs. `padding` (P,) int64: places of padding in `out`.
    """

    groups: tuple[tuple[int, int, Tensor | None], ...]
    heads: int
    qkv: HeadLayout
    out: HeadLayout
    padding: Tensor


def plan_products(groups: Groups, heads: int) -> ProductPlan:
    """Return the plan of `groups` for `heads` heads, once per batch."""
    entries = []
    for group in groups.groups:
        bias = None
        if group.mask is not None:
            bias = torch.zeros(group.mask.shape).masked_fill_(~group.mask, float("-inf"))
            bias = bias.expand(-1, heads, -1, -1).reshape(-1, 1, group.length)
        entries.append((group.sequences, group.length, bias))
    out = HeadLayout.build(groups, heads, 1)
    real = torch.zeros(len(out.gather), dtype=torch.bool)
    real[out.scatter] = True
    return ProductPlan(tuple(entries), heads, HeadLayout.build(groups, heads, 3), out, torch.nonzero(~real).squeeze(1))


def attend_products(qkv: Tensor, plan: ProductPlan, dropout: float) -> Tensor:
    """qkv (T, 3H), on a CPU -> (T, H), same dtype; `dropout` is the share of attention weights dropped.

    16-bit inputs are multiplied in 16 bits; attention weights are rounded to that dtype before the second product.
    """
    mixed: Tensor = _Products.apply(qkv, plan, dropout)  # type: ignore[no-untyped-call]
    return mixed


class _Products(torch.autograd.Function):
    """softmax(Q · Kᵗ / √D) · V of every group; the gradient uses the saved weights."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, plan: ProductPlan, dropout: float) -> Tensor:
        """qkv (T, 3H) -> (T, H)."""
        width = qkv.shape[1] // (3 * plan.heads)
        rows = qkv.reshape(-1, width).index_select(0, plan.qkv.gather)  # (3 · N · R, D)
        mixed = rows.new_empty(len(plan.out.gather), width)  # (N · R, D)
        saved: list[Tensor] = []
        with torch.autocast("cpu", enabled=False), _bf16_products(qkv.dtype):
            for bias, (query, key, value), out in _groups(plan, rows, mixed):
                scores = _scores(query, key, bias)
                weights = torch.softmax(scores, -1, out=scores).to(qkv.dtype)  # (n · N, L, L)
                saved.append(weights)
                if dropout:
                    saved.append(draw_keep_mask(weights.shape, dropout))
                    weights = apply_keep_mask(weights, saved[-1])
                torch.baddbmm(value, weights, value, beta=0, alpha=keep_scale(dropout), out=out)
        ctx.save_for_backward(rows, *saved)
        ctx.plan, ctx.dropout = plan, dropout
        return mixed.index_select(0, plan.out.scatter).view(len(qkv), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """gradient (T, H) -> gradient of qkv (T, 3H)."""
        plan, scale = ctx.plan, keep_scale(ctx.dropout)
        rows, *others = ctx.saved_tensors
        saved = iter(others)
        above = gradient.reshape(-1, rows.shape[1]).index_select(0, plan.out.gather)  # (N · R, D)
        above.index_fill_(0, plan.padding, 0.0)  # padding repeats a token; its gradient must not count twice
        d_rows = torch.empty_like(rows)
        scaling, wide = rows.shape[1] ** -0.5, _wide(rows.dtype)
        with torch.autocast("cpu", enabled=False), _bf16_products(rows.dtype):
            for _, (query, key, value), d_out, (d_query, d_key, d_value) in _groups(plan, rows, above, d_rows):
                weights = used = next(saved)
                d_weights = torch.bmm(d_out.to(wide), value.mT.to(wide))
                if ctx.dropout:
                    bits = next(saved)
                    used, d_weights = apply_keep_mask(weights, bits), apply_keep_mask(d_weights, bits).mul_(scale)
                torch.baddbmm(value, used.mT, d_out, beta=0, alpha=scale, out=d_value)
                d_scores = torch._softmax_backward_data(d_weights, weights.to(wide), -1, wide)
                low = d_scores.to(rows.dtype)
                torch.baddbmm(query, low, key, beta=0, alpha=scaling, out=d_query)
                torch.baddbmm(key, low.mT, query, beta=0, alpha=scaling, out=d_key)
        return d_rows.index_select(0, plan.qkv.scatter).view(len(gradient), -1), None, None


def _groups(plan: ProductPlan, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Yield the bias of every group and its part of each of `tensors`: (n · N, L, D), or q, k and v of that shape."""
    outputs, begin = len(plan.out.gather), 0
    for sequences, length, bias in plan.groups:
        end = begin + sequences * plan.heads * length
        parts: list[Any] = []
        for tensor in tensors:
            three = len(tensor) // outputs
            part = tensor[three * begin : three * end].view(three, sequences * plan.heads, length, -1)
            parts.append(part[0] if three == 1 else part.unbind(0))
        yield (bias, *parts)
        begin = end


def _scores(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """query, key (n · N, L, D), bias (n · N, 1, L) or None -> scaled scores (n · N, L, L), float32 or wider."""
    wide = _wide(query.dtype)
    added = query.new_empty((1, 1, 1), dtype=wide) if bias is None else bias.to(wide)
    beta = 0 if bias is None else 1
    return torch.baddbmm(added, query.to(wide), key.to(wide).mT, beta=beta, alpha=query.shape[-1] ** -0.5)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


@contextmanager
def _bf16_products(dtype: torch.dtype) -> Iterator[None]:
    """Multiply float32 matrices as bf16 with float32 sums if `dtype` is bf16; exact, since their numbers were bf16.

    torch has no CPU product from bf16 to float32. Processors without bf16 multiply in float32.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if dtype == torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
