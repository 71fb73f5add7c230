"""The embeddings: word, segment, position and task tables, summed and normalised.

T tokens in the pack · H hidden
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model import levers
from ernie2.model.dropout import Dropout
from ernie2.model.norm import Norm, compute_dtype

_FEW_ROWS = 64
"""Tables of up to this many rows get their gradient from a matrix product. Each of their rows is hit by a large share
of all tokens, and additions to one address wait for each other. Positions (512 rows) are hit some hundred times each:
there a product in float32 would be 51 GFLOP for 65,536 tokens × 768, about ten times what additions cost."""


class Embeddings(nn.Module):
    """The sum of four tables, normalised; without that of task ids (`task_ids: 0`), or of positions where these are not
    learned."""

    def __init__(self, settings: EncoderSettings, vocab_rows: int) -> None:
        super().__init__()
        self.token = _bare_table(vocab_rows, settings.hidden)
        learned = settings.positions == "learned"
        self.position = _bare_table(settings.position_rows, settings.hidden) if learned else None
        self.segment = _bare_table(settings.segment_types, settings.hidden)
        self.task = _bare_table(settings.task_ids, settings.hidden) if settings.task_ids else None
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, tokens: Tensor, segments: Tensor, positions: Tensor, task_ids: Tensor) -> Tensor:
        """Ids, each (T,) int64 -> (T, H) in the dtype of the residual stream."""
        summed = self.token(tokens) + _rows_of(self.segment, segments)
        if self.position is not None:
            summed = summed + self.position(positions)
        if self.task is not None:
            summed = summed + _rows_of(self.task, task_ids)
        normed: Tensor = self.dropout(self.norm(summed).to(compute_dtype(summed)))
        return normed


def _rows_of(table: nn.Embedding, ids: Tensor) -> Tensor:
    """ids (T,) -> (T, H). On a CPU additions do not wait, and their order must not depend on the number of threads."""
    as_it_is = ids.device.type == "cpu" and not torch.compiler.is_compiling()
    if as_it_is or table.num_embeddings > _FEW_ROWS or not levers.enabled("small_table_gradients"):
        picked: Tensor = table(ids)
    else:
        picked = _FewRows.apply(table.weight, ids)  # type: ignore[no-untyped-call]
    return picked


class _FewRows(torch.autograd.Function):
    """Rows of a small table; its gradient is onehotᵀ @ gradient, in float32 and in the same order every time."""

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
        with torch.autocast(gradient.device.type, enabled=False):  # a 16-bit product would round the gradient
            return onehot.to(gradient.dtype) @ gradient, None


def _bare_table(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
