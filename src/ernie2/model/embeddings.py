"""Embeddings: the sum of word, segment, position and task embeddings, with layer norm.

T tokens in the pack · H hidden
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model import optimizations
from ernie2.model.dropout import Dropout
from ernie2.model.norm import Norm, compute_dtype

_FEW_ROWS = 64
"""Tables with at most this many rows compute their gradient by a matrix product. Many tokens share each row, and atomic
additions to one address are serialised. For positions (512 rows, some hundred tokens each) the additions are cheaper:
the product in float32 would take 51 GFLOP for 65,536 tokens × 768, about ten times as long."""


class Embeddings(nn.Module):
    """Sum of four embedding tables, then layer norm and dropout.

    There is no task embedding if `task_ids` is 0, and no position table unless positions are learned.
    """

    def __init__(self, settings: EncoderSettings, vocab_rows: int) -> None:
        super().__init__()
        self.token = _uninitialised_embedding(vocab_rows, settings.hidden)
        learned = settings.positions == "learned"
        self.position = _uninitialised_embedding(settings.position_rows, settings.hidden) if learned else None
        self.segment = _uninitialised_embedding(settings.segment_types, settings.hidden)
        self.task = _uninitialised_embedding(settings.task_ids, settings.hidden) if settings.task_ids else None
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, tokens: Tensor, segments: Tensor, positions: Tensor, task_ids: Tensor) -> Tensor:
        """Ids, each (T,) int64 -> (T, H), dtype of the residual stream."""
        summed = self.token(tokens) + _rows_of(self.segment, segments)
        if self.position is not None:
            summed = summed + self.position(positions)
        if self.task is not None:
            summed = summed + _rows_of(self.task, task_ids)
        normed: Tensor = self.dropout(self.norm(summed).to(compute_dtype(summed)))
        return normed


def _rows_of(table: nn.Embedding, ids: Tensor) -> Tensor:
    """ids (T,) -> (T, H). On a CPU by plain lookup: additions do not contend, in an order independent of threads."""
    plain_lookup = ids.device.type == "cpu" and not torch.compiler.is_compiling()
    if plain_lookup or table.num_embeddings > _FEW_ROWS or not optimizations.is_enabled("small_table_gradients"):
        picked: Tensor = table(ids)
    else:
        picked = _FewRows.apply(table.weight, ids)  # type: ignore[no-untyped-call]
    return picked


class _FewRows(torch.autograd.Function):
    """Lookup in a small table. The gradient is onehot @ gradient in float32, in a fixed order."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        """table (R, H), ids (T,) -> (T, H)."""
        ctx.save_for_backward(ids)
        ctx.rows = len(table)
        return table.index_select(0, ids)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """gradient (T, H) -> (R, H), same dtype."""
        (ids,) = ctx.saved_tensors
        onehot = torch.arange(ctx.rows, device=ids.device)[:, None] == ids  # (R, T)
        with torch.autocast(gradient.device.type, enabled=False):  # autocast would round the gradient to 16 bits
            return onehot.to(gradient.dtype) @ gradient, None


def _uninitialised_embedding(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
