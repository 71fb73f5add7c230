"""Losses are sums with counts, so that it does not matter how a batch is cut up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ernie2.batches.batch import Targets
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from model_packs import SPECS, VOCABULARY, make_pack, only_sequences, small_settings, with_targets

LENGTHS = [9, 1, 30, 4, 4, 17]


@pytest.fixture
def model():
    return MultiTaskModel(small_settings(init_std=0.2), VOCABULARY, SPECS, seed=4)


def step(model, batches, static=False):
    """Σ over tasks of sum / count over all of `batches`, with its gradients by parameter name."""
    model.zero_grad()
    losses = [model(Inputs.from_batch(batch, "cpu", static)) for batch in batches]
    counts = {name: sum(loss[name].count for loss in losses if name in loss) for name in model.specs}
    total = sum(task.sum / counts[name] for loss in losses for name, task in loss.items())
    assert isinstance(total, torch.Tensor)
    total.backward()
    return total.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(
            gradient, other[1][name], atol=2e-6, rtol=1e-3, msg=lambda message, n=name: f"{n}: {message}"
        )


def test_splitting_a_batch_into_packs_changes_nothing(model):
    batch = make_pack(LENGTHS)
    packs = [only_sequences(batch, [0, 1]), only_sequences(batch, [2]), only_sequences(batch, [3, 4, 5])]
    assert_same_step(step(model, [batch]), step(model, packs))


def test_reordering_packs_and_sequences_changes_nothing(model):
    batch = make_pack(LENGTHS)
    packs = [only_sequences(batch, [5, 1]), only_sequences(batch, [3, 0, 4, 2])]
    assert_same_step(step(model, packs), step(model, packs[::-1]))
    assert_same_step(step(model, [batch]), step(model, [only_sequences(batch, [4, 2, 0, 5, 3, 1])]))


@pytest.mark.parametrize("name", [spec.name for spec in SPECS])
def test_duplicating_one_tasks_labels_changes_nothing(model, name):
    batch = make_pack(LENGTHS)
    old = batch.targets[name]
    doubled = Targets(np.tile(old.positions, 2), np.tile(old.labels, 2), 2 * old.count)
    more = with_targets(batch, {**batch.targets, name: doubled})
    assert_same_step(step(model, [batch]), step(model, [more]))
    once, twice = (model(Inputs.from_batch(each, "cpu", False))[name] for each in (batch, more))
    assert twice.sum.item() == pytest.approx(2 * once.sum.item(), rel=1e-5)
    assert twice.correct.item() == 2 * once.correct.item()
    assert twice.count == 2 * once.count


def test_padding_has_weight_0(model):
    batch = make_pack(LENGTHS, tail=90, target_tail=7)
    assert_same_step(step(model, [batch]), step(model, [batch], static=True))


def test_the_loss_is_cross_entropy_summed(model):
    model.eval()
    inputs = Inputs.from_batch(make_pack(LENGTHS), "cpu", False)
    hidden = model.encoder(inputs)
    losses = model(inputs)
    for name, pooled in (("capitalization_prediction", False), ("sentence_reordering", True)):
        targets, linear = inputs.targets[name], model.heads[name].linear
        picked = hidden[targets.positions]
        picked = (
            torch.tanh(F.linear(picked, model.encoder.pooler.weight, model.encoder.pooler.bias)) if pooled else picked
        )
        expected = F.cross_entropy(linear(picked), targets.labels, reduction="sum")
        torch.testing.assert_close(losses[name].sum, expected)
        assert losses[name].count == targets.count


def test_only_tasks_with_targets_run_and_other_heads_get_no_gradient(model):
    batch = make_pack(LENGTHS)
    only = with_targets(batch, {"capitalization_prediction": batch.targets["capitalization_prediction"]})
    losses = model(Inputs.from_batch(only, "cpu", False))
    assert list(losses) == ["capitalization_prediction"]
    losses["capitalization_prediction"].sum.backward()
    assert model.heads["sentence_reordering"].linear.weight.grad is None
    assert model.heads["knowledge_masking"].transform.weight.grad is None
    assert model.encoder.pooler.weight.grad is None


@pytest.mark.parametrize("static", [False, True])
def test_predictions_agree_with_losses_and_leave_the_mode_as_it_was(static):
    model = MultiTaskModel(small_settings(dropout=0.3), VOCABULARY, SPECS, seed=4)
    inputs = Inputs.from_batch(make_pack(LENGTHS, tail=5, target_tail=4), "cpu", static)
    predictions = model.predictions(inputs)
    assert model.training
    assert model.heads["sentence_reordering"].training
    losses = model.eval()(inputs)
    for name, (each, predicted) in predictions.items():
        assert each.shape == predicted.shape == (losses[name].count,)
        assert each.dtype == torch.float32
        assert each.sum().item() == pytest.approx(losses[name].sum.item(), rel=1e-5)
        labels = inputs.targets[name].labels[: losses[name].count]
        assert (predicted == labels).sum() == losses[name].correct


def test_gradients_are_the_same_bit_for_bit_on_two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = MultiTaskModel(small_settings(hidden=96, dropout=0.1), VOCABULARY, SPECS, seed=4)
        batch = make_pack([64, 3, 50, 50, 21, 60, 64], seed=2)
        runs = []
        for _ in range(3):
            torch.manual_seed(7)
            runs.append(step(model, [batch]))
    finally:
        torch.set_num_threads(threads)
    for total, gradients in runs[1:]:
        assert total == runs[0][0]
        assert all(torch.equal(gradients[name], gradient) for name, gradient in runs[0][1].items())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_bf16_autocast_gives_fp32_losses_and_finite_gradients(dropout):
    model = MultiTaskModel(small_settings(dropout=dropout), VOCABULARY, SPECS, seed=4)
    batch = make_pack(LENGTHS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(Inputs.from_batch(batch, "cpu", False))
    assert all(loss.sum.dtype == torch.float32 for loss in losses.values())
    sum(loss.sum / loss.count for loss in losses.values()).backward()
    assert all(
        p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_attention_dropout_trains_too():
    model = MultiTaskModel(small_settings(attention_dropout=0.2), VOCABULARY, SPECS, seed=4)
    total, gradients = step(model, [make_pack(LENGTHS)])
    assert np.isfinite(total)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_a_head_starts_the_same_whatever_other_heads_there_are():
    extra = HeadSpec("discourse_relation", "sentence", 174)
    few = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4).state_dict()
    more = MultiTaskModel(small_settings(), VOCABULARY, [extra, *SPECS], seed=4).state_dict()
    assert all(torch.equal(more[name], tensor) for name, tensor in few.items())


def test_rows_beyond_the_vocabulary_are_zero(model):
    assert model.encoder.embeddings.token.weight[VOCABULARY:].eq(0).all()
    assert len(model.encoder.embeddings.token.weight) == 128
