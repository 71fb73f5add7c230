"""Training with the pruned embedding gives the parameters of training with the full one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tiny_finetuning as tiny
from ernie2.finetuning.encoding import ExampleEncoder
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.finetuning.pruned_embedding import EmbeddingPruner, PrunedEmbedding
from ernie2.finetuning.training import train_model
from ernie2.model import optimizations
from ernie2.training.step import FiniteCheck

CPU = torch.device("cpu")


def ready(folder: Path, **changes):
    """A model before training, four short texts and settings."""
    settings = tiny.settings(**{"weight_decay": 0.1, "batch_size": 2, "epochs": 3, **changes})
    pretrained = tiny.pretrained(folder / "checkpoint", dropout=settings.dropout)
    encoder = ExampleEncoder(pretrained.tokenizer, "classification", tiny.LABELS["classification"], settings, 4)
    base_model, _ = pretrained.build(settings, 0)
    model = EncoderWithHead(base_model.encoder, "classification", 2, dropout=settings.dropout, seed=3)
    return model, encoder.encode(tiny.examples("classification", 4), labelled=True).sequences, settings


def used_of(sequences):
    return np.unique(np.concatenate([[0], *(one.tokens for one in sequences)]))


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_training_gives_the_same_parameters_as_with_the_full_embedding(tmp_path, dropout):
    model, sequences, settings = ready(tmp_path, dropout=dropout)
    assert 5 < len(used_of(sequences)) < len(tiny.VOCABULARY) - 5
    losses = train_model(model, sequences, settings, 0, CPU, after_epoch=dict).losses
    other, *_ = ready(tmp_path, dropout=dropout)
    with optimizations.disabled("pruned_embedding"):
        assert train_model(other, sequences, settings, 0, CPU, after_epoch=dict).losses == pytest.approx(
            losses, abs=1e-6
        )
    ours, whole = state_of(model), state_of(other)
    assert ours.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(ours[name], whole[name], atol=1e-6, rtol=1e-5)


def test_unused_rows_are_unchanged_without_weight_decay(tmp_path):
    model, sequences, settings = ready(tmp_path, weight_decay=0.0)
    before = model.encoder.embeddings.token.weight.detach().clone()
    train_model(model, sequences, settings, 0, CPU)
    used = torch.zeros(len(before), dtype=torch.bool)
    used[used_of(sequences)] = True
    changed = (model.encoder.embeddings.token.weight != before).any(1)
    assert not changed[~used].any()
    assert changed[used].sum() == used.sum() - 1  # padding is looked up by no text


def test_after_an_epoch_the_full_embedding_has_the_trained_rows(tmp_path):
    model, sequences, settings = ready(tmp_path)
    whole, seen = model.encoder.embeddings.token, []

    def look():
        assert model.encoder.embeddings.token is whole
        seen.append(whole.weight.detach().clone())
        return {}

    train_model(model, sequences, settings, 0, CPU, after_epoch=look)
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[2], whole.weight)


def test_interrupted_training_leaves_the_full_embedding(tmp_path):
    model, sequences, settings = ready(tmp_path)
    whole = model.encoder.embeddings.token

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_model(model, sequences, settings, 0, CPU, after_epoch=stop)
    assert model.encoder.embeddings.token is whole


def test_only_used_rows_are_parameters_inside_and_a_skipped_step_decays_nothing(tmp_path):
    model, sequences, _ = ready(tmp_path)
    sequences = [dataclasses.replace(sequences[0], tokens=np.array([2, 7, 3], np.int32))]
    before = model.encoder.embeddings.token.weight.detach().clone()
    with EmbeddingPruner(model, sequences, pad=0) as pruner:
        cut = model.encoder.embeddings.token
        assert isinstance(cut, PrunedEmbedding)
        assert [tuple(parameter.shape) for parameter in cut.parameters()] == [(4, 32)]
        torch.testing.assert_close(cut(torch.tensor([3, 2, 7])), before[[3, 2, 7]])
        pruner.record_decay(0.5, FiniteCheck({}, torch.tensor(1.0)))
        pruner.record_decay(0.5, FiniteCheck({}, torch.tensor(float("nan"))))
    after = model.encoder.embeddings.token
    assert isinstance(after, nn.Embedding)
    assert torch.equal(after.weight[[0, 2, 3, 7]], before[[0, 2, 3, 7]])  # what trains them decays them
    assert torch.equal(after.weight[8:], before[8:] / 2)
