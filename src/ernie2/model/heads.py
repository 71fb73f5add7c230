"""A head a task: what it scores, its loss as a sum with a count, its predictions.

T tokens in the pack · S sequences · H hidden · P scored positions · C classes · V vocabulary rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ernie2.model.attention import compute_dtype
from ernie2.model.compiling import compiled
from ernie2.model.dropout import Dropout
from ernie2.model.encoder import activate, bare_linear, initialise
from ernie2.model.inputs import TaskTargets
from ernie2.model.norm import Norm
from ernie2.settings import EncoderSettings

NEVER = -10_000.0
"""Bias of the vocabulary's padding rows: their probability is exactly 0, so they are never predicted nor trained."""

_CHUNK_LOGITS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits held at once: on a CPU about what its cache holds, on CUDA a guess not measured yet."""


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """Which head a task needs. `classes` None: the vocabulary (masked-language-model head, tied to the word table).

    `pooling`: what a sentence-level head reads, the pooled first token (paper) or the mean of the sequence's tokens.
    """

    name: str
    level: Literal["token", "sentence"]
    classes: int | None
    pooling: Literal["first", "mean"] = "first"


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

    def forward(self, picked: Tensor) -> Tensor:
        """picked (P, H) -> logits (P, C) float32."""
        logits: Tensor = self.linear(self.dropout(picked))
        return logits.float()

    def loss(self, picked: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions -> summed loss."""
        run = self._run if self.training else _class_loss
        summed, right = run(self, picked, targets.labels, targets.weights)
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compiles the loss for the static shapes of training."""
        self._run = compiled(_class_loss, backend)

    def predict(self, picked: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H) -> loss of each position (P,) float32 and its predicted class (P,) int64."""
        logits = self(picked)
        return F.cross_entropy(logits, targets.labels, reduction="none"), logits.argmax(-1)


def _class_loss(head: ClassHead, picked: Tensor, labels: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = head(picked)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return _weighed(losses, weights), _counted(logits.detach().argmax(-1) == labels, weights)


class VocabularyHead(nn.Module):
    """The masked-language-model head: transform, activation, norm, and the word table itself as the decoder.

    The norm's bias starts at 1.0, as in the authors' released code.
    """

    def __init__(self, settings: EncoderSettings, spec: HeadSpec, vocab_size: int, vocab_rows: int, seed: int) -> None:
        super().__init__()
        self.activation = settings.activation
        self.transform = bare_linear(settings.hidden, settings.hidden)
        self.norm = Norm(settings.hidden, settings.norm_eps)
        self.bias = nn.Parameter(torch.empty(vocab_rows))
        self._run: Callable[..., Any] = VocabularyHead.transformed
        self._score: Callable[..., Any] = _scored
        initialise(self, settings.init_std, seed, spec.name)
        with torch.no_grad():
            self.norm.bias.fill_(1.0)
            self.bias[vocab_size:] = NEVER

    def transformed(self, picked: Tensor) -> Tensor:
        """picked (P, H) -> what the word table is compared with, (P, H)."""
        normed: Tensor = self.norm(activate(self.transform(picked), self.activation))
        return normed

    def forward(self, picked: Tensor, table: Tensor) -> Tensor:
        """picked (P, H), table (V, H) -> all logits (P, V) float32; for a few positions, not for training."""
        return F.linear(self.transformed(picked), table, self.bias).float()

    def loss(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> TaskLoss:
        """Hidden states (P, H) at the scored positions, the word table (V, H) -> summed loss."""
        run, score = (self._run, self._score) if self.training else (VocabularyHead.transformed, _scored)
        states = run(self, picked)
        summed, right = vocabulary_loss(states, table, self.bias, targets.labels, targets.weights, score)
        return TaskLoss(summed, targets.count, right)

    def compile_parts(self, backend: str) -> None:
        """Compiles the transform and the softmax of a chunk for the static shapes of training."""
        self._run = compiled(VocabularyHead.transformed, backend)
        self._score = compiled(_scored, backend)

    def predict(self, picked: Tensor, table: Tensor, targets: TaskTargets) -> tuple[Tensor, Tensor]:
        """Hidden states (P, H), the word table (V, H) -> losses (P,) float32 and predicted word pieces (P,) int64."""
        losses, predicted = [], []
        for rows in _chunks(len(picked), table):
            logits, labels = self(picked[rows], table), targets.labels[rows]
            losses.append(F.cross_entropy(logits, labels, reduction="none"))
            predicted.append(logits.argmax(-1))
        return torch.cat(losses), torch.cat(predicted)


def _scored(
    logits: Tensor, answer: Tensor, weight: Tensor | None, needed: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """logits (p, V) in the compute dtype, answer (p, 1), weight (p,) or None -> summed loss and number right, both 0-d;
    where `needed` the gradient of the logits (p, V) in `dtype`, and its sum over positions (V,) float32.
    """
    logits = logits.float()
    best = logits.argmax(-1, keepdim=True)
    top, scored = logits.gather(1, best), logits.gather(1, answer)
    odds = torch.softmax(logits, -1)
    # log of the sum of exponentials = top - log(odds of top), exact since those odds are at least 1 / V
    losses = (top - odds.gather(1, best).log() - scored).squeeze(1)
    summed, right = _weighed(losses, weight), _counted((best == answer).squeeze(1), weight)
    if not needed:
        return summed, right, None, None
    gradient = odds.scatter_add_(1, answer, -torch.ones_like(scored))
    if weight is not None:
        gradient.mul_(weight[:, None])
    return summed, right, gradient.to(dtype), gradient.sum(0)


def vocabulary_loss(
    states: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    score: Callable[..., Any] = _scored,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of `states @ table.T + bias` without ever holding the logits of all positions.

    states (P, H), table (V, H), bias (V,), labels (P,) int64, weights (P,) float32 or None -> the sum, 0-d float32,
    and how many were predicted rightly, 0-d int64. Chunk by chunk of positions, the gradient is computed along with the
    loss and only scaled afterwards, so logits are computed once and memory is that of one chunk. Matrix products run in
    the autocast dtype where autocast is on; softmax, loss and sums are float32. `score`: what turns the logits of a
    chunk into loss and gradient, as it is or compiled.
    """
    compute = compute_dtype(states)
    loss: tuple[Tensor, Tensor] = _VocabularyLoss.apply(  # type: ignore[no-untyped-call]
        states, table, bias, labels, weights, compute, score
    )
    return loss


class _VocabularyLoss(torch.autograd.Function):
    """Loss and, where needed, its gradient in one pass over chunks of positions."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        bias: Tensor,
        labels: Tensor,
        weights: Tensor | None,
        compute: torch.dtype,
        score: Callable[..., Any],
    ) -> tuple[Tensor, Tensor]:
        needed = any(ctx.needs_input_grad[:3])
        low_states, low_table, low_bias = states.to(compute), table.to(compute), bias.to(compute)
        summed = torch.zeros((), dtype=torch.float32, device=states.device)
        right = torch.zeros((), dtype=torch.int64, device=states.device)
        d_states = torch.empty_like(low_states) if needed else None
        d_table = torch.zeros_like(table, dtype=torch.float32) if needed else None
        d_bias = torch.zeros_like(bias, dtype=torch.float32) if needed else None
        for rows in _chunks(len(states), table):
            part, answer = low_states[rows], labels[rows, None]
            weight = None if weights is None else weights[rows]
            logits = torch.addmm(low_bias, part, low_table.t())  # (p, V)
            loss, count, d_logits, d_bias_part = score(logits, answer, weight, needed, compute)
            summed += loss
            right += count
            if not needed:
                continue
            assert d_states is not None
            assert d_table is not None
            assert d_bias is not None
            d_bias += d_bias_part
            torch.mm(d_logits, low_table, out=d_states[rows])
            d_table += d_logits.t() @ part
        ctx.dtypes = (states.dtype, table.dtype, bias.dtype)
        ctx.save_for_backward(d_states, d_table, d_bias)
        ctx.mark_non_differentiable(right)
        return summed, right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        """Scales the stored gradients by that of the sum."""
        grads = [
            (gradient * scale).to(dtype) if needed and gradient is not None else None
            for gradient, dtype, needed in zip(ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad[:3], strict=True)
        ]
        return (*grads, None, None, None, None)


def _chunks(positions: int, table: Tensor) -> Iterator[slice]:
    """Runs of positions whose logits fit into one chunk."""
    step = max(16, _CHUNK_LOGITS.get(table.device.type, 1 << 22) // len(table))
    for begin in range(0, positions, step):
        yield slice(begin, min(begin + step, positions))


def _weighed(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses.sum() if weights is None else (losses * weights).sum()


def _counted(right: Tensor, weights: Tensor | None) -> Tensor:
    return right.sum() if weights is None else (right & (weights > 0)).sum()
