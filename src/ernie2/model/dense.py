"""The encoder on padded batches, as formats like ONNX want it: the parts of a packed `Encoder`, nothing dropped.

B texts · L tokens of the longest · H hidden
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ernie2.model.attention.plan import padded_batch_plan
from ernie2.model.encoder import Encoder


class DenseEncoder(nn.Module):
    """The same numbers as `encoder`, a Transformer, gives on packs; every text under the task id `task_id`."""

    def __init__(self, encoder: Encoder, task_id: int = 0) -> None:
        super().__init__()
        assert encoder.settings.kind == "transformer", "a recurrent encoder has no dense form"
        self.encoder, self.task_id = encoder, task_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Three (B, L) int64, the mask 1 at tokens and 0 at padding -> hidden states (B, L, H); those of padding mean
        nothing."""
        texts, length = input_ids.shape
        positions = torch.arange(length, device=input_ids.device).expand(texts, length)
        ids = (input_ids, token_type_ids, positions, torch.full_like(input_ids, self.task_id))
        hidden: Tensor = self.encoder.embeddings(*(each.reshape(-1) for each in ids))  # (B · L, H)
        plan = padded_batch_plan(attention_mask, self.encoder.settings)
        for layer in self.encoder.layers:
            hidden = layer(hidden, plan)
        hidden = hidden if self.encoder.final_norm is None else self.encoder.final_norm(hidden)
        return hidden.view(texts, length, -1)

    def pool(self, hidden: Tensor) -> Tensor:
        """hidden (B, L, H) -> the pooled first token (B, H)."""
        return torch.tanh(self.encoder.pooler(hidden[:, 0]))
