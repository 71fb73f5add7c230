"""The encoder on padded batches, as formats like ONNX want it: the parameters of a packed `Encoder`, nothing dropped.

B texts · L tokens of the longest · H hidden · N heads
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ernie2.model.encoder import Encoder, EncoderLayer, activate


class DenseEncoder(nn.Module):
    """The same numbers as `encoder`, a Transformer, gives on packs; every text under the task id `task_id`."""

    def __init__(self, encoder: Encoder, task_id: int = 0) -> None:
        super().__init__()
        assert encoder.settings.kind == "transformer", "a recurrent encoder has no dense form"
        self.encoder, self.task_id = encoder, task_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three (B, L) int64, the mask 1 at tokens and 0 at padding -> hidden states (B, L, H); those of padding mean
        nothing."""
        table = self.encoder.embeddings
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        summed = table.token(input_ids) + table.segment(token_type_ids) + table.position(positions)
        if table.task is not None:
            summed = summed + table.task.weight[self.task_id]
        hidden: Tensor = table.norm(summed)
        mask = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * torch.finfo(hidden.dtype).min
        for layer in self.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            hidden = _through(layer, hidden, mask)
        return hidden

    def pool(self, hidden: Tensor) -> Tensor:
        """hidden (B, L, H) -> the pooled first token (B, H)."""
        return torch.tanh(self.encoder.pooler(hidden[:, 0]))


def _through(layer: EncoderLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    """hidden (B, L, H), mask (B, 1, 1, L) added to scores -> (B, L, H)."""
    attention, ffn = layer.attention, layer.ffn
    width = hidden.shape[-1]
    shape = (hidden.shape[0], hidden.shape[1], 3, attention.heads, width // attention.heads)
    query, key, value = (part.transpose(1, 2) for part in attention.qkv(hidden).view(shape).unbind(2))  # (B, N, L, D)
    scores = query @ key.transpose(-1, -2) / math.sqrt(width // attention.heads) + mask
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    hidden = attention.norm.of_sum(hidden, attention.output(mixed))
    return ffn.norm.of_sum(hidden, ffn.outer(activate(ffn.inner(hidden), ffn.activation)))
