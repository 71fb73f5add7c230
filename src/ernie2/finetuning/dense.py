"""A fine-tuned model on padded batches, for ONNX: the same logits as on packs."""

from __future__ import annotations

from torch import Tensor, nn

from ernie2.finetuning.heads import TunedModel
from ernie2.model.dense import DenseEncoder


class DenseTuned(nn.Module):
    """`model` as a function of padded ids; it gives what the class of `transformers` for its kind of task gives."""

    def __init__(self, model: TunedModel) -> None:
        super().__init__()
        self.model = model
        self.dense = DenseEncoder(model.encoder)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Three (B, L) int64 -> logits (B, C) of whole texts, (B, L, C) of tokens; of spans start and end logits, each
        (B, L)."""
        hidden = self.dense(input_ids, attention_mask, token_type_ids)
        if self.model.head in ("tagging", "span"):
            logits: Tensor = self.model.linear(hidden)
            return (logits[..., 0], logits[..., 1]) if self.model.head == "span" else logits
        if self.model.pooling == "first":
            pooled = self.dense.pool(hidden)
        else:
            shares = attention_mask.to(hidden.dtype)[..., None]
            pooled = (hidden * shares).sum(1) / shares.sum(1)
        scored: Tensor = self.model.linear(pooled)
        return scored
