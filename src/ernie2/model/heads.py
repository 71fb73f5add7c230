"""A head a task: what it scores, its loss as a sum with a count, its predictions.

T tokens in the pack · S sequences · H hidden · P scored positions · C classes · V vocabulary rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model.compiling import compiled
from ernie2.model.dropout import Dropout
from ernie2.model.inputs import TaskTargets
from ernie2.model.layers import ACTIVATIONS
from ernie2.model.norm import Norm
from ernie2.model.parameters import bare_linear, initialise
from ernie2.model.vocabulary_loss import count_right, score_chunk, vocabulary_loss, weighted_sum

NEVER = -10_000.0
"""Bias of the vocabulary's padding rows: their probability is exactly 0, so they are never predicted nor trained."""

_PREDICTED = {"cpu": 128, "cuda": 2048}
"""Positions whose logits are held at once in evaluation, (positions, V) float32."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Which head a task needs. `classes` None: the vocabulary (masked-language-model head, tied to the word table)."""

    name: str
    level: Literal["token", "sentence"]
    classes: int | None


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """Cross-entropy of one task over one pack: `sum` 0-d float32 with gradient, `count` of scored positions, and how
    many of them were predicted rightly, `correct` 0-d int64 on the device (reading it waits for the device)."""

    sum: Tensor
    count: int
    correct: Tensor


class ClassHead(nn.Module):
    """One linear on what it is given; at sentence level dropout comes first (released code: `<task>_fc`)."""

    def __init__(self, settings: EncoderSettings, spec: HeadSpec, seed: int) -> None:
        super().__init__()
        assert spec.classes is not None
        self.dropout = Dropout(settings.dropout if spec.level == "sentence" else 0.0)
        self.linear = bare_linear(settings.hidden, spec.classes)
        self._run: Callable[..., Any] = _class_loss
        initialise(self, settings.init_std, seed, spec.name)

    @staticmethod
    def matrix_weights(settings: EncoderSettings, spec: HeadSpec, vocab_size: int) -> int:
        """Weights of matrices that a scored position goes through: H · C, and H² where the first token is pooled."""
        assert spec.classes is not None
        pooler = settings.hidden if spec.level == "sentence" else 0
        return settings.hidden * (pooler + spec.classes)

    def forward(self, picked: Tensor) -> Tensor:
        """picked (P, H) -> logits (P, C) float32."""
        logits: Tensor = self.linear(self.dropout(picked))
        return logits.float()

    def loss(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions -> summed loss."""
        run = self._run if self.training else _class_loss
        summed, right = run(self, picked, targets.labels, targets.weights)
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compiles the loss for the static shapes of training."""
        self._run = compiled(_class_loss, backend)

    def predict(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H) -> loss of each position (P,) float32 and its predicted class (P,) int64."""
        logits = self(picked)
        return F.cross_entropy(logits, targets.labels, reduction="none"), logits.argmax(-1)


def _class_loss(head: ClassHead, picked: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = head(picked)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return weighted_sum(losses, weights), count_right(logits.detach().argmax(-1) == labels, weights)


class VocabularyHead(nn.Module):
    """The masked-language-model head: transform, activation, norm, and the word table itself as the decoder.

    The norm's bias starts at 1.0, as in the authors' released code.
    """

    def __init__(self, settings: EncoderSettings, spec: HeadSpec, vocab_size: int, vocab_rows: int, seed: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[settings.activation]
        self.transform = bare_linear(settings.hidden, settings.hidden)
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.bias = nn.Parameter(torch.empty(vocab_rows))
        self._run: Callable[..., Any] = VocabularyHead.transformed
        self._score: Callable[..., Any] | None = None
        initialise(self, settings.init_std, seed, spec.name)
        with torch.no_grad():
            self.norm.bias.fill_(1.0)
            self.bias[vocab_size:] = NEVER

    @staticmethod
    def matrix_weights(settings: EncoderSettings, spec: HeadSpec, vocab_size: int) -> int:
        """Weights of matrices that a scored position goes through: H² + H · V."""
        return settings.hidden * (settings.hidden + vocab_size)

    def transformed(self, picked: Tensor) -> Tensor:
        """picked (P, H) -> what the word table is compared with, (P, H)."""
        normed: Tensor = self.norm(self.activation(self.transform(picked)))
        return normed

    def forward(self, picked: Tensor, table: Tensor) -> Tensor:
        """picked (P, H), table (V, H) -> all logits (P, V) float32; for a few positions, not for training."""
        return F.linear(self.transformed(picked), table, self.bias).float()

    def loss(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions, the word table (V, H) -> summed loss."""
        run, score = (self._run, self._score) if self.training else (VocabularyHead.transformed, None)
        summed, right = vocabulary_loss(
            run(self, picked), table, self.bias, targets.labels, targets.weights, targets.count, score
        )
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compiles the transform and the softmax of a chunk for the static shapes of training."""
        self._run = compiled(VocabularyHead.transformed, backend)
        self._score = compiled(score_chunk, backend)

    def predict(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H), the word table (V, H) -> losses (P,) float32 and predicted word pieces (P,) int64."""
        losses, predicted = [], []
        rows = _PREDICTED.get(table.device.type, 128)
        for begin in range(0, len(picked), rows):
            chunk = slice(begin, begin + rows)
            logits, labels = self(picked[chunk], table), targets.labels[chunk]
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            predicted.append(logits.argmax(-1))
        return torch.cat(losses), torch.cat(predicted)


Head = ClassHead | VocabularyHead


def head_class(spec: HeadSpec) -> type[Head]:
    """Return the class of a task's head."""
    return VocabularyHead if spec.classes is None else ClassHead
