"""Steps and predictions of fine-tuning on a card that computes nothing, for every head.

Not collected by itself: `test_fake_cuda.py` runs it in a process in which the guard is loaded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch._subclasses.fake_tensor import unset_fake_temporarily

import tiny_finetuning as tiny
from ernie2.config.settings import EncoderSettings, TrainSettings
from ernie2.finetuning.encoding import TARGET_NAME, EncodedSequence, build_packs
from ernie2.finetuning.heads import EncoderWithHead, output_count
from ernie2.finetuning.inference.predictions import compute_logits
from ernie2.model.encoder import Encoder
from ernie2.training.optimizers import build_optimizer
from ernie2.training.step import LocalBatch, StepSettings, take_step
from fake_cuda.base_runs import on_card
from fake_cuda.card import CUDA, Card

LABELS: dict[Any, Any] = {"classification": [1], "multi_label": [[0.0, 1.0]], "regression": [0.5], "span": [[1, 2]]}


def sequences(head: Any) -> list[EncodedSequence]:
    """Forty of different lengths, labelled at the first token, or at every token where `head` tags."""
    rng, made = np.random.default_rng(0), []
    for number, length in enumerate(rng.integers(5, 40, 40).tolist()):
        positions = np.arange(length if head == "tagging" else 1, dtype=np.int32)
        labels = np.array(LABELS.get(head, [0] * length))
        kept = labels.astype(np.float32) if labels.dtype.kind == "f" else labels
        tokens = rng.integers(5, 60, length).astype(np.int32)
        made.append(EncodedSequence(tokens, np.zeros_like(tokens), positions, kept, number))
    return made


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("head", [*LABELS, "tagging"])
def test_steps_do_not_synchronise_and_predictions_once(head, pooling):
    """Dropped attention weights go through padded groups: a copy for the pack, one for its groups."""
    settings, given = tiny.settings(precision="bf16"), sequences(head)
    packs = build_packs(given, settings, 0, 0)
    with Card() as card:
        with unset_fake_temporarily():
            encoder = Encoder(
                EncoderSettings(layers=1, hidden=64, heads=2, position_rows=64, attention_dropout=0.1), 64
            )
            model = EncoderWithHead(encoder, head, output_count(head, 2), pooling=pooling)
        on_card(model)
        step_settings = StepSettings(weights={TARGET_NAME: 1.0}, max_grad_norm=1.0, precision="bf16", device=CUDA)
        optimizer = build_optimizer(model.train(), TrainSettings())
        card.steps += 1
        take_step(model, optimizer, LocalBatch.of(packs, (0,)), step_settings, 1e-4)
        assert not card.waits
        assert card.copies == 2 * len(packs)
        model.to = lambda *_: model  # it is there already
        assert len(list(compute_logits(model, given, settings, CUDA))) == len(given)
        assert len(card.waits) == 1
