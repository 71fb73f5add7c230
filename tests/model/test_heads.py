"""Heads: what they start from, what they never predict, and losses that agree with predictions."""

from __future__ import annotations

import torch

from ernie2.model.heads import PADDING_BIAS, ClassHead, HeadSpec, VocabularyHead
from ernie2.model.inputs import TaskTargets
from model_packs import VOCABULARY, small_settings

ROWS = 128  # 70 word pieces, padded


def drawn(positions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, 24, generator=generator, requires_grad=True)
    table = torch.randn(ROWS, 24, generator=generator, requires_grad=True)
    bias = torch.randn(ROWS, generator=generator, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    return states, table, bias, labels


def masked_head():
    return VocabularyHead(small_settings(), HeadSpec("masking", "token", None), VOCABULARY, ROWS, seed=0)


def test_padding_rows_of_the_vocabulary_have_no_probability_and_no_gradient():
    head, table = masked_head(), torch.ones(ROWS, 24, requires_grad=True)
    states = torch.full((5, 24), 3.0)
    assert head(states, table).softmax(-1)[:, VOCABULARY:].eq(0).all()
    loss = head.loss(states, table, TaskTargets(torch.arange(5), torch.arange(5), None, 5))
    loss.sum.backward()
    assert table.grad is not None
    assert head.bias.grad is not None
    assert table.grad[VOCABULARY:].eq(0).all()
    assert head.bias.grad[VOCABULARY:].eq(0).all()
    assert head.bias[VOCABULARY:].eq(PADDING_BIAS).all()


def test_the_norm_of_the_masked_head_starts_with_bias_1_as_in_the_released_code():
    head = masked_head()
    assert head.norm.bias.eq(1).all()
    assert head.norm.weight.eq(1).all()
    assert head.bias[:VOCABULARY].eq(0).all()


def test_predictions_agree_with_the_loss():
    head, (states, table, _, labels) = masked_head(), drawn(37)
    targets = TaskTargets(torch.arange(37), labels, None, 37)
    losses, predicted = head.predict(states, table, targets)
    loss = head.loss(states, table, targets)
    torch.testing.assert_close(losses.sum(), loss.sum, atol=1e-4, rtol=1e-5)
    assert (predicted == labels).sum() == loss.correct
    assert predicted.max() < VOCABULARY


def test_a_head_starts_from_its_name_and_the_seed():
    def weight(name, seed):
        return ClassHead(small_settings(), HeadSpec(name, "sentence", 3), seed).linear.weight

    assert torch.equal(weight("a", 1), weight("a", 1))
    assert not torch.equal(weight("a", 1), weight("b", 1))
    assert not torch.equal(weight("a", 1), weight("a", 2))
