"""Fine-tuning models: a pre-trained encoder and one linear layer, for every kind of task.

T tokens of a pack · S sequences · L tokens of the longest · H hidden size · P scored positions · C outputs

The heads follow the released scripts. Sequence-level: tanh-pooled [CLS] → dropout → linear. Tags and spans: hidden
states → dropout → linear. The loss of a span is the mean of the start loss and the end loss.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.datasets.examples import Head
from ernie2.finetuning.encoding import TARGET_NAME
from ernie2.model.dropout import Dropout
from ernie2.model.encoder import Encoder, PaddedEncoder
from ernie2.model.heads import TaskLoss
from ernie2.model.inputs import Inputs
from ernie2.model.optimizations import is_enabled
from ernie2.model.parameters import initialise, uninitialised_linear
from ernie2.model.scored_rows import ScoredRows

Pooling = Literal["first", "mean"]


def output_count(head: Head, labels: int) -> int:
    """Return C, the number of outputs of a head."""
    return {"regression": 1, "span": 2}.get(head, labels)


class EncoderWithHead(nn.Module):
    """An encoder, dropout and a linear head on packed sequences.

    Only the head is initialised, from `seed`. `pooling`: a sequence-level head reads the pooled [CLS] ("first") or the
    mean of the hidden states.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: Head,
        outputs: int,
        *,
        dropout: float = 0.1,
        seed: int = 0,
        pooling: Pooling = "first",
    ) -> None:
        super().__init__()
        self.head, self.pooling = head, pooling
        self.encoder = encoder
        self.dropout = Dropout(dropout)
        self.linear = uninitialised_linear(encoder.settings.hidden, outputs)
        initialise(nn.ModuleDict({"linear": self.linear}), encoder.settings.init_std, seed, head)

    def forward(self, inputs: Inputs) -> dict[str, TaskLoss]:
        """Return {TARGET_NAME: loss summed over the scored positions}; `training.step.take_step` divides by the count.

        Classes and tags: cross-entropy. Numbers: squared error. Several labels: binary cross-entropy, averaged over the
        classes. Spans: mean of the cross-entropies of first and last token, over the tokens of each sequence.
        """
        targets = inputs.targets[TARGET_NAME]
        scores, labels = self.scores(inputs), targets.labels
        if self.head == "regression":
            losses, correct = (scores.squeeze(-1) - labels).square(), torch.zeros_like(labels, dtype=torch.bool)
        elif self.head == "multi_label":
            losses = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(-1)
            correct = ((scores > 0) == (labels > 0.5)).all(-1)
        elif self.head == "span":
            rows = pad_span_logits(scores, inputs)  # (P, L, 2)
            losses = F.cross_entropy(rows, labels, reduction="none").mean(-1)
            correct = (rows.detach().argmax(1) == labels).all(-1)
        else:
            losses = F.cross_entropy(scores, labels, reduction="none")
            correct = scores.detach().argmax(-1) == labels
        return {TARGET_NAME: TaskLoss(losses.sum(), targets.count, correct.sum())}

    def scores(self, inputs: Inputs) -> Tensor:
        """Return float32 logits: (P, C) at the scored positions, for spans (T, 2) at every token.

        The head computes in float32 even under autocast: the 8 significant bits of bf16 are too few for ranking.
        """
        rows = inputs.rows if self._reads_cls and is_enabled("scored_rows") else None
        hidden = self.encoder(inputs, rows)
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = self.linear(self.dropout(self._gather_hidden(hidden.float(), inputs, rows)))
        return logits

    @property
    def _reads_cls(self) -> bool:
        return self.pooling == "first" and self.head not in ("tagging", "span")

    def _gather_hidden(self, hidden: Tensor, inputs: Inputs, rows: ScoredRows | None) -> Tensor:
        """hidden (T, H) float32, or (R, H) at `rows` -> input of the head, (P, H) or (T, H)."""
        positions = inputs.targets[TARGET_NAME].positions if rows is None else rows.places[TARGET_NAME]
        if self.head == "span":
            return hidden
        if self.head == "tagging":
            return hidden.index_select(0, positions)
        if self.pooling == "first":
            return self.encoder.pool(hidden, positions)
        sizes = inputs.starts.diff().long()
        # unsafe: the check of the sizes would synchronise with the device
        means = torch.segment_reduce(hidden, "mean", lengths=sizes, axis=0, unsafe=True)  # (S, H)
        return means.index_select(0, torch.searchsorted(inputs.starts, positions, right=True) - 1)


def pad_span_logits(scores: Tensor, inputs: Inputs) -> Tensor:
    """scores (T, 2) -> (S, L, 2), padded with -inf, which the softmax ignores."""
    lengths = inputs.starts.diff().long()
    offsets = torch.arange(int(max(inputs.lengths)), device=scores.device)
    is_token = offsets < lengths[:, None]  # (S, L)
    at = inputs.starts[:-1, None].long() + torch.minimum(offsets, lengths[:, None] - 1)
    rows = scores.index_select(0, at.reshape(-1)).view(*at.shape, 2)
    return rows.masked_fill(~is_token[..., None], float("-inf"))


class PaddedEncoderWithHead(nn.Module):
    """The same model on padded batches, with the outputs of the matching class of `transformers`."""

    def __init__(self, model: EncoderWithHead) -> None:
        super().__init__()
        self.model = model
        self.dense = PaddedEncoder(model.encoder)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Three (B, L) int64 -> logits (B, C), for tags (B, L, C); for spans start and end logits, each (B, L)."""
        hidden = self.dense(input_ids, attention_mask, token_type_ids)
        if self.model.head in ("tagging", "span"):
            logits: Tensor = self.model.linear(hidden)
            return (logits[..., 0], logits[..., 1]) if self.model.head == "span" else logits
        if self.model.pooling == "first":
            pooled = self.dense.pool(hidden)
        else:
            mask = attention_mask.to(hidden.dtype)[..., None]
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        sequence_logits: Tensor = self.model.linear(pooled)
        return sequence_logits
