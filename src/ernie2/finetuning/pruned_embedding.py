"""Restrict the token embedding to the rows that the training texts use, during fine-tuning.

The row of an unused token never gets a gradient. Its Adam moments stay 0, and only weight decay changes it. Steps
without those rows skip their gradients, their part of the norm and Adam's update. On CoLA they are three quarters of
BERT's token embedding, or a third of the parameters of 6 layers × 384.

V rows of the full embedding · R used rows · H hidden size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.finetuning.encoding import EncodedSequence
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.model.optimizations import is_enabled
from ernie2.training.step import FiniteCheck


class PrunedEmbedding(nn.Module):
    """The rows `used` (R,) of an embedding (V, H); `weight` (R, H) is the only parameter."""

    def __init__(self, full: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(full.weight.detach().index_select(0, used))
        self.register_buffer("index", torch.zeros(len(full.weight), dtype=torch.int64, device=used.device))
        self.index: Tensor
        self.index[used] = torch.arange(len(used), device=used.device)  # (V,)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (T,) int64 with used rows -> (T, H)."""
        return F.embedding(self.index.index_select(0, tokens), self.weight)


class EmbeddingPruner:
    """Prune the token embedding of `model` to used rows inside a `with` block."""

    def __init__(self, model: EncoderWithHead, train: Sequence[EncodedSequence], pad: int) -> None:
        """`train`: all sequences of the run. `pad`: id of the padding token of packs with static shapes."""
        self._embeddings = model.encoder.embeddings
        self._full: nn.Embedding = self._embeddings.token
        self._pruned: PrunedEmbedding | None = None
        if is_enabled("pruned_embedding") and train:
            used = torch.from_numpy(np.unique(np.concatenate([[pad], *(one.tokens for one in train)])).astype(np.int64))
            self._used_rows = used.to(self._full.weight.device)
            self._pruned = PrunedEmbedding(self._full, self._used_rows)
            self._decay = torch.ones((), device=self._used_rows.device)
            self._prune()

    def __enter__(self) -> EmbeddingPruner:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def record_decay(self, rate: float, finite: FiniteCheck) -> None:
        """Apply weight decay to the unused rows for one step, unless the step was skipped.

        `rate`: learning rate · weight decay.
        """
        if self._pruned is not None and rate:
            self._decay *= 1 - rate * (1 - finite.bad)

    @contextmanager
    def unpruned(self) -> Iterator[None]:
        """Restore the full embedding, with the trained rows, inside a `with` block."""
        self._restore()
        yield
        self._prune()

    def _prune(self) -> None:
        if self._pruned is not None:
            self._embeddings.token = self._pruned  # type: ignore[assignment]

    def _restore(self) -> None:
        if self._pruned is None:
            return
        with torch.no_grad():
            self._full.weight *= self._decay  # used rows are overwritten below
            self._full.weight.index_copy_(0, self._used_rows, self._pruned.weight)
            self._decay.fill_(1.0)
        self._embeddings.token = self._full
