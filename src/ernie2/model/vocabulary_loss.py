"""Cross-entropy over the vocabulary: loss and gradient in one pass, chunk by chunk.

P scored positions · p positions of one chunk · V vocabulary rows · H hidden

The logits of a chunk are the largest tensors of a training step. Besides the three matrix products, the cost is how
often they are read and written. Compiled for CUDA under bf16, a chunk moves 12 bytes per logit (18 in the plain form).
The first product writes 2. One kernel reads 2 for the sum of exponentials, reads the same row from the cache, and
writes the gradient, 2. The bias reads 2, and so do both other products.
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
"""Most positions of a chunk. Every chunk adds to the gradient of the full table. By NVIDIA's data sheets for H100 and
H200 that costs as much as 250 positions (not measured), and half a chunk is padding on average. So 2,048 is cheapest if
10,000 of 16,384 positions are scored. On a CPU 600 to 2,500 rows took the same time, 300 rows 6 % more."""
_MAX_CHUNK_LOGITS = 1 << 26
"""Most logits of a chunk, for vocabularies above 32,768 (CUDA) and 65,536 (CPU): 256 MiB of float32."""
_ALIGNED = 8
"""With static shapes, the rows of a chunk are a multiple of this, for matrix kernels."""
_TILE_ROWS = 64
"""Rows per softmax on a CPU. 8 to 128 rows, or the full chunk, took the same time within 4 %; with 64, memory besides
the logits stays below 24 MB at 30,522 tokens."""

Scores = tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]
"""Result of a chunk: summed loss, 0-d float32; number correct, 0-d int64; optionally the gradient of the logits (p, V),
in their dtype, and its sum over positions (V,) float32."""


def vocabulary_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    count: int,
    score: Callable[..., Scores] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of `states @ table.T + bias` and the number of correct predictions.

    states (P, H), table (V, H), bias (V,), labels (P,) int64, weights (P,) float32 or None -> 0-d float32, 0-d int64.
    `weights` are required with static shapes; positions from `count` on then have weight 0. `score`: a compiled
    `score_chunk`.

    Logits exist for one chunk at a time: the gradient is computed with the loss and scaled in the backward pass, which
    can run only once. Matrix products run in the autocast dtype if autocast is on; softmax, loss and sums in float32.
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
    """Return the rows per chunk, for the smallest number of equal chunks.

    If `static`, `positions` are padded to a multiple of it; otherwise the last chunk may be shorter.
    """
    most = min(_MAX_CHUNK_ROWS.get(device, _MAX_CHUNK_ROWS["cpu"]), max(_ALIGNED, _MAX_CHUNK_LOGITS // vocabulary_rows))
    rows = -(-positions // max(1, -(-positions // most)))
    return -(-rows // _ALIGNED) * _ALIGNED if static else rows


def score_chunk(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """Score logits (p, V) against answer (p, 1) int64, weight (p,) or None; with the gradient if `needed`."""
    by_logsumexp = torch.compiler.is_compiling() and optimizations.is_enabled("vocabulary_logsumexp")
    return (_score_by_logsumexp if by_logsumexp else _score_by_softmax)(logits, answer, weight, needed)


def _score_by_logsumexp(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """Compiled form, without (p, V) intermediates: reads the logits twice and writes their gradient once."""
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
    """Eager form with the fewest kernels; stores the float32 softmax (p, V)."""
    exact = logits.float()
    best = exact.argmax(-1, keepdim=True)
    top, scored = exact.gather(1, best), exact.gather(1, answer)
    probabilities = torch.softmax(exact, -1)
    # logsumexp = top - log(probability of top), accurate because that probability is at least 1 / V
    summed = weighted_sum((top - probabilities.gather(1, best).log() - scored).squeeze(1), weight)
    counted = count_correct((best == answer).squeeze(1), weight)
    if not needed:
        return summed, counted, None
    return (
        summed,
        counted,
        _weighted(probabilities.scatter_add_(1, answer, -torch.ones_like(scored)), weight, logits.dtype),
    )


def _weighted(gradient: Tensor, weight: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """gradient (p, V) float32, modified in place, weight (p,) or None -> (p, V) in `dtype`, its sum (V,) float32."""
    if weight is not None:
        gradient.mul_(weight[:, None])
    low = gradient.to(dtype)
    return low, low.sum(0, dtype=torch.float32)


def _score_tiles(logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool) -> Scores:
    """CPU form: tile by tile; the gradient overwrites the logits."""
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
    """`vocabulary_loss`; computes the gradient in the forward pass if needed."""

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
        gradients: list[Tensor] = []  # of states, table and bias
        if needed:
            d_table = torch.empty_like(table, dtype=torch.float32) if begins else torch.zeros_like(table)
            gradients = [torch.zeros_like(low_states), d_table, torch.zeros_like(bias, dtype=torch.float32)]
        for begin in begins:
            chunk = slice(begin, begin + rows)
            part, weight = low_states[chunk], None if weights is None else weights[chunk]
            logits = torch.addmm(low_bias, part, low_table.t())  # (p, V)
            loss, counted, gradient = score(logits, labels[chunk, None], weight, needed)
            summed += loss
            right += counted
            if gradient is not None:
                (d_logits, sums), (d_states, d_table, d_bias) = gradient, gradients
                torch.mm(d_logits, low_table, out=d_states[chunk])
                _add_product(d_table, d_logits, part, first=begin == 0)
                d_bias += sums
        ctx.rows, ctx.dtypes = zip(*((len(each), each.dtype) for each in (states, table, bias)), strict=True)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(right)
        return summed, right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Scale the stored gradients in place; torch raises an error on a second call."""
        grads = [
            gradient.mul_(scale)[:rows].to(dtype) if needed else None
            for gradient, rows, dtype, needed in zip(
                ctx.saved_tensors, ctx.rows, ctx.dtypes, ctx.needs_input_grad[:3], strict=True
            )
        ]
        return (*grads, None, None, None, None)


def _pad_rows(rows: Tensor, missing: int) -> Tensor:
    """rows (P, …) -> (P + missing, …), padded with zeros."""
    return F.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, missing)) if missing > 0 else rows


def _add_product(total: Tensor, d_logits: Tensor, part: Tensor, first: bool) -> None:
    """Add d_logits (p, V)ᵀ @ part (p, H) to total (V, H) float32; overwrite it if `first`."""
    if total.dtype == part.dtype:
        torch.addmm(total, d_logits.t(), part, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(d_logits.t() @ part)
    else:
        total += d_logits.t() @ part


def weighted_sum(losses: Tensor, weights: Tensor | None) -> Tensor:
    """losses (P,), weights (P,) or None -> weighted sum, 0-d."""
    return losses.sum() if weights is None else (losses * weights).sum()


def count_correct(right: Tensor, weights: Tensor | None) -> Tensor:
    """right (P,) bool, weights (P,) or None -> number correct with weight above 0, 0-d int64."""
    return right.sum() if weights is None else (right & (weights > 0)).sum()
