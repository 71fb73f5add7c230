"""Attention whose weights are dropped, on a CPU: matrix products over padded groups, with a gradient of its own.

torch's `scaled_dot_product_attention` has a fast kernel on a CPU only where nothing is dropped. With dropout it takes
the math path: safe softmax, a mask drawn element by element, and an autograd step for each. Here one function does all
groups of a layer, and the mask is drawn by `dropout.kept_bits`.

T tokens in the pack · N heads · D width of a head · H = N · D hidden
n sequences of one group, padded to the group's longest L · R = Σ n · L rows of all groups
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ernie2.model.dropout import kept_bits, scale_of, zeroed

if TYPE_CHECKING:
    from ernie2.model.attention.padded import Group, Padded

_SAVED = 6
"""Tensors a group saves for its gradient."""


def attend_dropped(qkv: Tensor, heads: int, padded: Padded, share: float) -> Tensor:
    """Softmax attention of every token over its own sequence, with the share `share` of the weights dropped.

    qkv (T, 3H) on a CPU -> (T, H), same dtype; computed in float32 or wider. The mask is a function of torch's default
    generator alone. Weights that are kept are scaled up, so the expected value is that without dropout.
    """
    mixed: Tensor = _Dropped.apply(qkv, heads, padded, share)  # type: ignore[no-untyped-call]
    return mixed


def _working(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


class _Dropped(torch.autograd.Function):
    """All groups of one layer."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, padded: Padded, share: float) -> Tensor:
        """qkv (T, 3H) -> (T, H)."""
        with torch.autocast("cpu", enabled=False):
            rows = qkv.index_select(0, padded.gather).to(_working(qkv))  # (R, 3H)
            mixed = rows.new_empty(len(rows), rows.shape[1] // 3)  # (R, H)
            saved: list[Tensor] = []
            for group, part, place in zip(
                padded.groups, torch.split(rows, padded.sizes), torch.split(mixed, padded.sizes), strict=True
            ):
                saved += _forward(group, part, place, heads, share)
            ctx.save_for_backward(*saved)
            ctx.heads, ctx.padded, ctx.share = heads, padded, share
            return mixed.index_select(0, padded.scatter).to(qkv.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """gradient (T, H) -> that of qkv (T, 3H)."""
        padded, saved = ctx.padded, ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            above = gradient.index_select(0, padded.gather).to(_working(gradient))  # (R, H)
            if padded.real is not None:
                above.mul_(padded.real.to(above.dtype))  # padding repeats a token, whose gradient must not count again
            rows = above.new_empty(len(above), 3 * above.shape[1])  # (R, 3H)
            for number, (group, part, place) in enumerate(
                zip(padded.groups, torch.split(above, padded.sizes), torch.split(rows, padded.sizes), strict=True)
            ):
                _backward(group, part, place, ctx.heads, ctx.share, *saved[number * _SAVED : (number + 1) * _SAVED])
            return rows.index_select(0, padded.scatter).to(gradient.dtype), None, None, None


def _forward(group: Group, rows: Tensor, mixed: Tensor, heads: int, share: float) -> tuple[Tensor, ...]:
    """rows (n · L, 3H); writes `mixed` (n · L, H); returns what the gradient needs."""
    sequences, length = group.sequences, group.length
    width = rows.shape[1] // (3 * heads)
    parts = rows.view(sequences, length, 3, heads, width).permute(2, 0, 3, 1, 4)
    query, key, value = parts.reshape(3, sequences * heads, length, width).unbind(0)  # each (n · N, L, D)
    weights = rows.new_empty(sequences * heads, length, length)
    torch.baddbmm(weights, query, key.mT, beta=0, alpha=1 / math.sqrt(width), out=weights)
    if group.mask is not None:
        beyond = rows.new_zeros(group.mask.shape).masked_fill_(~group.mask, -math.inf)  # (n, 1, 1, L)
        weights.view(sequences, heads, length, length).add_(beyond)
    torch.softmax(weights, -1, out=weights)
    dropped = zeroed(weights, kept_bits(weights.shape, share))
    output = torch.baddbmm(value, dropped, value, beta=0, alpha=scale_of(share))  # (n · N, L, D)
    mixed.view(sequences, length, heads, width).copy_(output.view(sequences, heads, length, width).transpose(1, 2))
    return query, key, value, weights, dropped, output


def _backward(
    group: Group,
    above: Tensor,
    rows: Tensor,
    heads: int,
    share: float,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
    dropped: Tensor,
    output: Tensor,
) -> None:
    """above (n · L, H), the gradient of what `_forward` wrote; writes that of its rows into `rows` (n · L, 3H).

    For weights p, mask m and scale c: the gradient of the scores is c · m · p · (above · value) - p · (above · output),
    since above · output is the sum of p times the gradient of p.
    """
    sequences, length = group.sequences, group.length
    width, scale = query.shape[-1], 1 / math.sqrt(query.shape[-1])
    above = above.view(sequences, length, heads, width).transpose(1, 2).reshape(query.shape)  # (n · N, L, D)
    made = query.new_empty(3, *query.shape)
    torch.baddbmm(made[2], dropped.mT, above, beta=0, alpha=scale_of(share), out=made[2])
    scores = torch.empty_like(weights)
    torch.baddbmm(scores, above, value.mT, beta=0, alpha=scale_of(share), out=scores)
    scores.mul_(dropped).addcmul_(weights, (above * output).sum(-1, keepdim=True), value=-1)
    torch.baddbmm(made[0], scores, key, beta=0, alpha=scale, out=made[0])
    torch.baddbmm(made[1], scores.mT, query, beta=0, alpha=scale, out=made[1])
    parts = made.view(3, sequences, heads, length, width).permute(1, 3, 0, 2, 4)
    rows.view(sequences, length, 3, heads, width).copy_(parts)
