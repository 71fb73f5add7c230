"""The word table cut down to the rows that the training texts use, while a model is fine-tuned.

A row whose word no training text holds never gets a gradient, so its Adam moments stay 0 and only weight decay moves
it. A step that leaves those rows out writes no gradient for them, takes no norm of it and does not run Adam over them:
on CoLA that is three quarters of BERT's table, a third of the parameters of 6 layers × 384.

V rows of the whole table · R rows that are used · H hidden
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
from ernie2.training.step import Finite


class PrunedEmbedding(nn.Module):
    """A table (V, H) that is looked up in its rows `used` (R,) alone; `weight` (R, H) is what is trained."""

    def __init__(self, whole: nn.Embedding, used: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(whole.weight.detach().index_select(0, used))
        self.register_buffer("place", torch.zeros(len(whole.weight), dtype=torch.int64, device=used.device))
        self.place: Tensor
        self.place[used] = torch.arange(len(used), device=used.device)  # (V,)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (T,) int64, each of a used row -> (T, H)."""
        return F.embedding(self.place.index_select(0, tokens), self.weight)


class EmbeddingPruner:
    """The word table of `model`, cut down to used rows inside its `with` block but for what runs in `restored`."""

    def __init__(self, model: EncoderWithHead, train: Sequence[EncodedSequence], pad: int) -> None:
        """`train`: every text of the run; `pad`: the token that fills packs of static shapes."""
        self._embeddings = model.encoder.embeddings
        self._whole: nn.Embedding = self._embeddings.token
        self._cut: PrunedEmbedding | None = None
        if is_enabled("pruned_embedding") and train:
            used = torch.from_numpy(np.unique(np.concatenate([[pad], *(one.tokens for one in train)])).astype(np.int64))
            self._is_used = used.to(self._whole.weight.device)
            self._cut = PrunedEmbedding(self._whole, self._is_used)
            self._decay = torch.ones((), device=self._is_used.device)
            self._cut_down()

    def __enter__(self) -> EmbeddingPruner:
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def record_decay(self, rate: float, finite: Finite) -> None:
        """Record that a step decayed all rows by `rate` = learning rate · weight decay, unless it was skipped."""
        if self._cut is not None and rate:
            self._decay *= 1 - rate * (1 - finite.bad)

    @contextmanager
    def unpruned(self) -> Iterator[None]:
        """Put the whole table back, with all that was trained, inside this `with` block."""
        self._restore()
        yield
        self._cut_down()

    def _cut_down(self) -> None:
        if self._cut is not None:
            self._embeddings.token = self._cut  # type: ignore[assignment]

    def _restore(self) -> None:
        if self._cut is None:
            return
        with torch.no_grad():
            self._whole.weight *= self._decay  # rows that are used are overwritten
            self._whole.weight.index_copy_(0, self._is_used, self._cut.weight)
            self._decay.fill_(1.0)
        self._embeddings.token = self._whole
