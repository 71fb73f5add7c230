"""Task heads: one per task, each with its loss (a sum and a count) and its predictions.

H hidden · P scored positions · C classes · V vocabulary rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.config.settings import EncoderSettings
from ernie2.model.compiling import compile_function
from ernie2.model.dropout import Dropout
from ernie2.model.inputs import TaskTargets
from ernie2.model.layers import ACTIVATIONS
from ernie2.model.norm import Norm
from ernie2.model.parameters import initialise, uninitialised_linear
from ernie2.model.vocabulary_loss import count_correct, score_chunk, vocabulary_loss, weighted_sum

PADDING_BIAS = -10_000.0
"""Bias of the vocabulary's padding rows: their probability is exactly 0, so they are never predicted or trained."""

_EVAL_POSITIONS = {"cpu": 128, "cuda": 2048}
"""Positions per chunk of logits, (positions, V) float32, in evaluation, by device."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Head of a task. `classes` None: the vocabulary (masked-language-model head, tied to the token embedding)."""

    name: str
    level: Literal["token", "sentence"]
    classes: int | None


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """Cross-entropy of one task over one pack.

    `sum`: 0-d float32 with gradient. `count`: scored positions. `correct`: 0-d int64 on the device, correct
    predictions; reading it waits for the device.
    """

    sum: Tensor
    count: int
    correct: Tensor


class ClassHead(nn.Module):
    """Linear classifier, with dropout before it at sentence level (`<task>_fc` in the released code)."""

    def __init__(self, settings: EncoderSettings, spec: HeadSpec, seed: int) -> None:
        super().__init__()
        assert spec.classes is not None
        self.dropout = Dropout(settings.dropout if spec.level == "sentence" else 0.0)
        self.linear = uninitialised_linear(settings.hidden, spec.classes)
        self._run: Callable[..., Any] = _class_loss
        initialise(self, settings.init_std, seed, spec.name)

    @staticmethod
    def matrix_weights(settings: EncoderSettings, spec: HeadSpec, vocab_size: int) -> int:
        """Return the number of matrix weights per scored position: H · C, plus H² if the first token is pooled."""
        assert spec.classes is not None
        pooler = settings.hidden if spec.level == "sentence" else 0
        return settings.hidden * (pooler + spec.classes)

    def forward(self, states: Tensor) -> Tensor:
        """states (P, H) -> logits (P, C) float32."""
        logits: Tensor = self.linear(self.dropout(states))
        return logits.float()

    def loss(self, states: Tensor, table: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions -> summed loss."""
        run = self._run if self.training else _class_loss
        summed, right = run(self, states, targets.labels, targets.weights)
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compile the loss for the static shapes of training."""
        self._run = compile_function(_class_loss, backend)

    def predict(self, states: Tensor, table: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H) -> losses (P,) float32 and predicted classes (P,) int64."""
        logits = self(states)
        return F.cross_entropy(logits, targets.labels, reduction="none"), logits.argmax(-1)


def _class_loss(head: ClassHead, states: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = head(states)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return weighted_sum(losses, weights), count_correct(logits.detach().argmax(-1) == labels, weights)


class VocabularyHead(nn.Module):
    """Masked-language-model head: transform, activation, norm, and the token embedding as decoder.

    The norm's bias starts at 1.0, as in the authors' released code.
    """

    def __init__(self, settings: EncoderSettings, spec: HeadSpec, vocab_size: int, vocab_rows: int, seed: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[settings.activation]
        self.transform = uninitialised_linear(settings.hidden, settings.hidden)
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.bias = nn.Parameter(torch.empty(vocab_rows))
        self._run: Callable[..., Any] = VocabularyHead.transform_states
        self._score: Callable[..., Any] | None = None
        initialise(self, settings.init_std, seed, spec.name)
        with torch.no_grad():
            self.norm.bias.fill_(1.0)
            self.bias[vocab_size:] = PADDING_BIAS

    @staticmethod
    def matrix_weights(settings: EncoderSettings, spec: HeadSpec, vocab_size: int) -> int:
        """Return the number of matrix weights per scored position: H² + H · V."""
        return settings.hidden * (settings.hidden + vocab_size)

    def transform_states(self, states: Tensor) -> Tensor:
        """states (P, H) -> input of the decoder, (P, H)."""
        normed: Tensor = self.norm(self.activation(self.transform(states)))
        return normed

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """states (P, H), table (V, H) -> all logits (P, V) float32; only for a few positions, in evaluation."""
        return F.linear(self.transform_states(states), table, self.bias).float()

    def loss(self, states: Tensor, table: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions, token embedding (V, H) -> summed loss."""
        run, score = (self._run, self._score) if self.training else (VocabularyHead.transform_states, None)
        summed, right = vocabulary_loss(
            run(self, states), table, self.bias, targets.labels, targets.weights, targets.count, score
        )
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compile the transform and the softmax of a chunk for the static shapes of training."""
        self._run = compile_function(VocabularyHead.transform_states, backend)
        self._score = compile_function(score_chunk, backend)

    def predict(self, states: Tensor, table: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H), token embedding (V, H) -> losses (P,) float32 and predicted tokens (P,) int64."""
        losses, predicted = [], []
        rows = _EVAL_POSITIONS.get(table.device.type, 128)
        for begin in range(0, len(states), rows):
            chunk = slice(begin, begin + rows)
            logits, labels = self(states[chunk], table), targets.labels[chunk]
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            predicted.append(logits.argmax(-1))
        return torch.cat(losses), torch.cat(predicted)


Head = ClassHead | VocabularyHead


def head_class(spec: HeadSpec) -> type[Head]:
    """Return the class of a task's head."""
    return VocabularyHead if spec.classes is None else ClassHead
