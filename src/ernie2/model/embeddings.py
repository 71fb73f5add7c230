"""The embeddings: word, segment, position and task tables, summed and normalised.

T tokens in the pack · H hidden
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ernie2.model.attention import compute_dtype
from ernie2.model.dropout import Dropout
from ernie2.model.inputs import Inputs
from ernie2.model.norm import Norm
from ernie2.settings import EncoderSettings


class Embeddings(nn.Module):
    """The sum of four tables, normalised; without task ids (`task_ids: 0`), of three."""

    def __init__(self, settings: EncoderSettings, vocab_rows: int) -> None:
        super().__init__()
        self.token = _bare_table(vocab_rows, settings.hidden)
        self.position = _bare_table(settings.position_rows, settings.hidden)
        self.segment = _bare_table(settings.segment_types, settings.hidden)
        self.task = _bare_table(settings.task_ids, settings.hidden) if settings.task_ids else None
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.dropout = Dropout(settings.dropout)

    def forward(self, inputs: Inputs) -> Tensor:
        """Ids, each (T,) int64 -> (T, H) in the dtype of the residual stream."""
        summed = self.token(inputs.tokens) + self.segment(inputs.segments) + self.position(inputs.positions)
        if self.task is not None:
            summed = summed + self.task(inputs.task_ids)
        normed: Tensor = self.dropout(self.norm(summed).to(compute_dtype(summed)))
        return normed


def _bare_table(rows: int, width: int) -> nn.Embedding:
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))
