"""Cross-entropy over the vocabulary, loss and gradient in one pass over chunks of positions.

P scored positions · p positions of one chunk · V vocabulary rows · H hidden

The logits of a chunk are the largest tensors of a training step. What counts besides the three matrix products is how
often they are read and written. Compiled for CUDA under bf16 a chunk moves 12 bytes a logit (18 by the plain form): the
first product writes 2; one kernel reads 2 for the sum of exponentials, then the same row from the card's cache, and
writes the gradient, 2; the bias reads 2, and so do both other products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ernie2.model import optimizations
from ernie2.model.norm import compute_dtype

_MAX_CHUNK_ROWS = {"cpu": 1024, "cuda": 2048}
"""Positions of a chunk. Every chunk adds to the whole table's gradient; in bytes, at the rates of NVIDIA's data sheets
for H100 and H200, that costs as much as 250 positions (not measured), and half a chunk is padding on average: 2,048
costs least where 10,000 of 16,384 positions are scored. On a CPU 600 to 2,500 rows took the same time, 300 6 % more."""
_MAX_CHUNK_LOGITS = 1 << 26
"""Logits of a chunk, for vocabularies beyond 32,768 (CUDA) and 65,536 (CPU): 256 MiB of float32."""
_ALIGNED = 8
"""Rows of a chunk of static shape are a multiple of this, as matrix kernels want."""
_TILE_ROWS = 64
"""Rows of the softmax on a CPU: 8 to 128, or the whole chunk, took the same time within 4 %; tiles of 64 keep what is
held besides the logits below 24 MB at 30,522 tokens."""

Scores = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]
"""Of a chunk: summed loss, 0-d float32; number right, 0-d int64; where wanted, the gradient of its logits (p, V) in
their dtype with the sum of that over positions, (V,) float32."""


def vocabulary_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    count: int,
    score: Callable[..., Scores] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of `states @ table.T + bias`, and how many positions were predicted rightly.

    states (P, H), table (V, H), bias (V,), labels (P,) int64, weights (P,) float32 or None -> 0-d float32, 0-d int64.
    `weights` are given where shapes are static; positions from `count` on weigh nothing then. The logits of all
    positions are never held: the gradient is computed chunk by chunk along with the loss and scaled in the backward
    pass, which can run once only. Matrix products run in the autocast dtype where autocast is on; softmax, loss and
    sums are float32. `score`: a compiled `score_chunk`.
    """
    if score is None:
        score = (
            _score_tiles
            if states.device.type == "cpu" and optimizations.is_enabled("vocabulary_tiles")
            else score_chunk
        )
    if weights is not None and not optimizations.is_enabled("vocabulary_skip_padding"):
        count = len(states)
    loss: tuple[Tensor, Tensor] = _VocabularyLoss.apply(  # type: ignore[no-untyped-call]
        states, table, bias, labels, weights, count, score
    )
    return loss


def chunk_rows(positions: int, vocabulary_rows: int, device: str, static: bool) -> int:
    """Return how many rows each of the fewest equal chunks has; all but the last where not `static`.

    Static chunks all have this many, so `positions` are padded to a multiple of it.
    """
    most = min(_MAX_CHUNK_ROWS.get(device, _MAX_CHUNK_ROWS["cpu"]), max(_ALIGNED, _MAX_CHUNK_LOGITS // vocabulary_rows))
    rows = -(-positions // max(1, -(-positions // most)))
    return -(-rows // _ALIGNED) * _ALIGNED if static else rows


def score_chunk(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """Score logits (p, V) against answer (p, 1) int64, weight (p,) or None; the gradient where `needed`."""
    by_logsumexp = torch.compiler.is_compiling() and optimizations.is_enabled("vocabulary_logsumexp")
    return (_score_by_logsumexp if by_logsumexp else _score_by_softmax)(logits, answer, weight, needed)


def _score_by_logsumexp(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """For a compiler, which holds nothing (p, V) in between: reads logits twice and writes their gradient once."""
    exact = logits.float()
    top = exact.amax(-1, keepdim=True)
    total = (exact - top).exp().sum(-1, keepdim=True)  # (p, 1)
    summed = weighted_sum((top + total.log() - exact.gather(1, answer)).squeeze(1), weight)
    counted = count_correct(exact.argmax(-1) == answer.squeeze(1), weight)
    if not needed:
        return summed, counted, None
    is_answer = torch.arange(logits.shape[1], device=logits.device) == answer  # (p, V)
    return summed, counted, _weighted((exact - top).exp() / total - is_answer.float(), weight, logits.dtype)


def _score_by_softmax(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """For kernels one by one: the fewest of them, with float32 odds (p, V) in between."""
    exact = logits.float()
    best = exact.argmax(-1, keepdim=True)
    top, scored = exact.gather(1, best), exact.gather(1, answer)
    odds = torch.softmax(exact, -1)
    # log of the sum of exponentials = top - log(odds of top), exact since those odds are at least 1 / V
    summed = weighted_sum((top - odds.gather(1, best).log() - scored).squeeze(1), weight)
    counted = count_correct((best == answer).squeeze(1), weight)
    if not needed:
        return summed, counted, None
    return summed, counted, _weighted(odds.scatter_add_(1, answer, -torch.ones_like(scored)), weight, logits.dtype)


def _weighted(gradient: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradient (p, V) float32, changed in place, weight (p,) or None -> (p, V) in `dtype`, its sum (V,) float32."""
    if weight is not None:
        gradient.mul_(weight[:, None])
    low = gradient.to(dtype)
    return low, low.sum(0, dtype=torch.float32)


def _score_tiles(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """For a CPU: tile by tile, and the gradient takes the place of the logits."""
    summed, counted = logits.new_zeros((), dtype=torch.float32), answer.new_zeros(())
    sums = logits.new_zeros(logits.shape[1] if needed else 0, dtype=torch.float32)
    for begin in range(0, len(logits), _TILE_ROWS):
        rows = slice(begin, begin + _TILE_ROWS)
        part = None if weight is None else weight[rows]
        loss, right, gradient = _score_by_softmax(logits[rows], answer[rows], part, needed)
        summed += loss
        counted += right
        if gradient is not None:
            logits[rows] = gradient[0]
            sums += gradient[1]
    return summed, counted, (logits, sums) if needed else None


class _VocabularyLoss(torch.autograd.Function):
    """`vocabulary_loss`, with the gradient computed along where it is needed."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        bias: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        count: int,
        score: Callable[..., Scores],
    ) -> tuple[Tensor, Tensor]:
        compute = compute_dtype(states)
        needed = any(ctx.needs_input_grad[:3])
        low_states, low_table, low_bias = states.to(compute), table.to(compute), bias.to(compute)
        rows = chunk_rows(len(states), len(table), states.device.type, static=weights is not None)
        begins = range(0, min(count, len(states)), rows)
        if weights is not None:
            missing = len(begins) * rows - len(states)
            low_states, labels, weights = (_pad_rows(each, missing) for each in (low_states, labels, weights))
        summed = torch.zeros((), dtype=torch.float32, device=states.device)
        right = torch.zeros((), dtype=torch.int64, device=states.device)
        held: list[Tensor] = []  # gradients of states, table and bias
        if needed:
            d_table = torch.empty_like(table, dtype=torch.float32) if begins else torch.zeros_like(table)
            held = [torch.zeros_like(low_states), d_table, torch.zeros_like(bias, dtype=torch.float32)]
        for begin in begins:
            chunk = slice(begin, begin + rows)
            part, weight = low_states[chunk], None if weights is None else weights[chunk]
            logits = torch.addmm(low_bias, part, low_table.t())  # (p, V)
            loss, counted, gradient = score(logits, labels[chunk, None], weight, needed)
            summed += loss
            right += counted
            if gradient is not None:
                (d_logits, sums), (d_states, d_table, d_bias) = gradient, held
                torch.mm(d_logits, low_table, out=d_states[chunk])
                _add_product(d_table, d_logits, part, first=begin == 0)
                d_bias += sums
        ctx.rows, ctx.dtypes = zip(*((len(each), each.dtype) for each in (states, table, bias)), strict=True)
        ctx.save_for_backward(*held)
        ctx.mark_non_differentiable(right)
        return summed, right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Scales the stored gradients in place; torch raises an error where that is asked for twice."""
        grads = [
            gradient.mul_(scale)[:rows].to(dtype) if needed else None
            for gradient, rows, dtype, needed in zip(
                ctx.saved_tensors, ctx.rows, ctx.dtypes, ctx.needs_input_grad[:3], strict=True
            )
        ]
        return (*grads, None, None, None, None)


def _pad_rows(rows: Tensor, missing: int) -> Tensor:
    """rows (P, …) -> (P + missing, …), zeros at the end."""
    return F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, missing)) if missing > 0 else rows


def _add_product(total: Tensor, d_logits: Tensor, part: Tensor, first: bool) -> None:
    """Add d_logits (p, V)ᵀ @ part (p, H) to total (V, H) float32; the `first` overwrites what is there."""
    if total.dtype == part.dtype:
        torch.addmm(total, d_logits.t(), part, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(d_logits.t() @ part)
    else:
        total += d_logits.t() @ part


def weighted_sum(losses: Tensor, weights: Tensor | None) -> Tensor:
    """losses (P,), weights (P,) or None -> 0-d."""
    return losses.sum() if weights is None else (losses * weights).sum()


def count_correct(right: Tensor, weights: Tensor | None) -> Tensor:
    """right (P,) bool, weights (P,) or None -> how many are right and weigh something, 0-d int64."""
    return right.sum() if weights is None else (right & (weights > 0)).sum()
