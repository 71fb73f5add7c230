"""The network that is fine-tuned: a pre-trained encoder and one linear, for each kind of task, on packs or padded.

T tokens in the pack · S sequences · L tokens of the longest · H hidden · P scored positions · C outputs

Heads are those of the released scripts: tanh-pooled [CLS] → dropout → linear for whole texts; dropout → linear on
hidden states for tags and spans, whose loss is the mean of those of start and end.
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
    """C, the outputs of a head for so many labels."""
    return {"regression": 1, "span": 2}.get(head, labels)


class EncoderWithHead(nn.Module):
    """`encoder`, `dropout`, `linear`; the linear is initialised from `seed`, the encoder is taken as it is.

    `pooling`: what the head of a whole text reads, the pooled [CLS] or the mean of the hidden states.
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
        """A pack with labels -> its summed loss, by the one name targets have; `train.step.take_step` divides by the
        count.

        Cross-entropy of a class a text or a tag a token; squared error; binary cross-entropy meant over the classes;
        for spans (cross-entropy of the first token + that of the last) / 2 over the tokens of each sequence.
        """
        targets = inputs.targets[TARGET_NAME]
        scores, labels = self.scores(inputs), targets.labels
        if self.head == "regression":
            losses, right = (scores.squeeze(-1) - labels).square(), torch.zeros_like(labels, dtype=torch.bool)
        elif self.head == "multi_label":
            losses = F.binary_cross_entropy_with_logits(scores, labels, reduction="none").mean(-1)
            right = ((scores > 0) == (labels > 0.5)).all(-1)
        elif self.head == "span":
            rows = pad_span_logits(scores, inputs)  # (P, L, 2)
            losses = F.cross_entropy(rows, labels, reduction="none").mean(-1)
            right = (rows.detach().argmax(1) == labels).all(-1)
        else:
            losses = F.cross_entropy(scores, labels, reduction="none")
            right = scores.detach().argmax(-1) == labels
        return {TARGET_NAME: TaskLoss(losses.sum(), targets.count, right.sum())}

    def scores(self, inputs: Inputs) -> Tensor:
        """A pack -> logits float32, (P, C) at the scored positions; for spans (T, 2) at every token.

        The head computes in float32 under any autocast: bf16 has 8 significant bits, too few for scores and ranks.
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
        """hidden (T, H) float32, or (R, H) at `rows` -> what the linear reads, (P, H) or (T, H)."""
        positions = inputs.targets[TARGET_NAME].positions if rows is None else rows.places[TARGET_NAME]
        if self.head == "span":
            return hidden
        if self.head == "tagging":
            return hidden.index_select(0, positions)
        if self.pooling == "first":
            return self.encoder.pool(hidden, positions)
        sizes = inputs.starts.diff().long()
        # unsafe: else torch reads the sizes back to check them, and the host waits for the card
        means = torch.segment_reduce(hidden, "mean", lengths=sizes, axis=0, unsafe=True)  # (S, H)
        return means.index_select(0, torch.searchsorted(inputs.starts, positions, right=True) - 1)


def pad_span_logits(scores: Tensor, inputs: Inputs) -> Tensor:
    """scores (T, 2) -> (S, L, 2), a row a sequence, -inf beyond its end: padding takes no part in the softmax."""
    lengths = inputs.starts.diff().long()
    steps = torch.arange(int(max(inputs.lengths)), device=scores.device)
    real = steps < lengths[:, None]  # (S, L)
    at = inputs.starts[:-1, None].long() + torch.minimum(steps, lengths[:, None] - 1)
    rows = scores.index_select(0, at.reshape(-1)).view(*at.shape, 2)
    return rows.masked_fill(~real[..., None], float("-inf"))


class PaddedEncoderWithHead(nn.Module):
    """`model` as a function of padded ids; it gives what the class of `transformers` for its kind of task gives."""

    def __init__(self, model: EncoderWithHead) -> None:
        super().__init__()
        self.model = model
        self.dense = PaddedEncoder(model.encoder)

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
