"""Sequence classification: one linear layer on what is pooled, the whole encoder trained along.

Head and schedule are those of the released scripts (paper, Tables 3 and 4): tanh-pooled [CLS] → dropout → linear;
linear warm-up over 10 % of the steps, then linear decay. Packed batches: no padding is paid for. A batch counts
examples, not tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch, Targets, end_to_end
from ernie2.batches.order import generator
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.settings import TrainSettings
from ernie2.train.optim import build_optimizer
from ernie2.train.step import autocast, take_step

Array = NDArray[Any]

HEAD = "classification"
_PREDICT_EXAMPLES = 64


@dataclass(frozen=True)
class Examples:
    """Labelled sequences: `tokens[i]` (n_i,) ids with special tokens, `labels` (n,) int64 classes."""

    tokens: Sequence[Array]
    labels: Array

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)


@dataclass(frozen=True)
class FineTuneSettings:
    """How a classifier is trained; `batch` counts examples."""

    epochs: int = 3
    batch: int = 32
    peak_lr: float = 3e-5
    warmup_share: float = 0.1
    task_id: int = 0
    precision: str = "fp32"


def classifier_of(
    model: MultiTaskModel, classes: int, seed: int, pooling: Literal["first", "mean"] = "first"
) -> MultiTaskModel:
    """A model with the encoder of `model` (copied) and a new head of `classes` classes, initialised from `seed`."""
    made = MultiTaskModel(model.settings, model.vocab_size, [HeadSpec(HEAD, "sentence", classes, pooling)], seed)
    made.encoder.load_state_dict(model.encoder.state_dict())
    return made


def fine_tune(
    model: MultiTaskModel, train: Examples, settings: FineTuneSettings, seed: int, device: torch.device
) -> None:
    """Trains `model`, made by `classifier_of`, in place; order and dropout follow from `seed`."""
    model.to(device).train()
    optimizer = build_optimizer(model, TrainSettings(peak_lr=settings.peak_lr, weight_decay=0.0))
    steps = settings.epochs * -(-len(train) // settings.batch)
    for number, chosen in enumerate(_batches(len(train), settings, seed), 1):
        take_step(
            model,
            optimizer,
            [_pack(train, chosen, settings.task_id)],
            weights={HEAD: 1.0},
            lr=_rate(number, steps, settings),
            clip=1.0,
            precision=settings.precision,
            device=device,
            dropout_key=(seed, "fine-tuning", number),
        )


def predict(model: MultiTaskModel, examples: Examples, settings: FineTuneSettings, device: torch.device) -> Array:
    """(n,) int64: the predicted class of each example."""
    predicted = []
    for first in range(0, len(examples), _PREDICT_EXAMPLES):
        chosen = np.arange(first, min(first + _PREDICT_EXAMPLES, len(examples)))
        inputs = Inputs.of(_pack(examples, chosen, settings.task_id), device, static=False)
        with torch.inference_mode(), autocast(settings.precision, device):
            predicted.append(model.predictions(inputs)[HEAD][1].cpu().numpy())
    return np.concatenate(predicted)


def _batches(examples: int, settings: FineTuneSettings, seed: int) -> Iterator[Array]:
    for epoch in range(settings.epochs):
        order = generator(seed, "fine-tuning order", epoch).permutation(examples)
        for first in range(0, examples, settings.batch):
            yield order[first : first + settings.batch]


def _rate(step: int, steps: int, settings: FineTuneSettings) -> float:
    """Linear warm-up, then linear decay counted from step 0, as the released scripts do."""
    warmup = settings.warmup_share * steps
    return settings.peak_lr * min(step / warmup if warmup else 1.0, 1 - (step - 1) / steps)


def _pack(examples: Examples, chosen: Array, task_id: int) -> PackedBatch:
    tokens = [examples.tokens[i] for i in chosen]
    lengths = [len(sequence) for sequence in tokens]
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(np.int32)
    return end_to_end(
        tokens,
        [np.zeros(length, np.int64) for length in lengths],
        [task_id] * len(tokens),
        {HEAD: Targets(starts, examples.labels[chosen], len(tokens))},
        room=sum(lengths),
        longest=max(lengths),
        pad=0,
    )
