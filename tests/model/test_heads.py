"""Heads: the vocabulary loss in chunks is cross-entropy, and a head's start depends on its name and the seed alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ernie2.model import heads
from ernie2.model.heads import NEVER, ClassHead, HeadSpec, VocabularyHead, vocabulary_loss
from ernie2.model.inputs import TaskTargets
from model_packs import VOCABULARY, small_settings

ROWS = 128  # 70 word pieces, padded


@pytest.fixture(params=[1 << 22, 16 * ROWS], ids=["one chunk", "chunks of 16"])
def _chunked(request, monkeypatch):
    monkeypatch.setitem(heads._CHUNK_LOGITS, "cpu", request.param)


def drawn(positions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, 24, generator=generator, requires_grad=True)
    table = torch.randn(ROWS, 24, generator=generator, requires_grad=True)
    bias = torch.randn(ROWS, generator=generator, requires_grad=True)
    labels = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    return states, table, bias, labels


@pytest.mark.usefixtures("_chunked")
@pytest.mark.parametrize("positions", [1, 16, 17, 50])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_vocabulary_loss_and_its_gradients_equal_cross_entropy(positions, weighed):
    states, table, bias, labels = drawn(positions)
    weights = (torch.arange(positions) % 3 != 1).float() if weighed else None
    summed, right = vocabulary_loss(states, table, bias, labels, weights)
    logits = F.linear(states, table, bias)
    kept = torch.ones(positions) if weights is None else weights
    expected = (F.cross_entropy(logits, labels, reduction="none") * kept).sum()
    torch.testing.assert_close(summed, expected, atol=1e-4, rtol=1e-5)
    assert right.item() == ((logits.argmax(-1) == labels) & (kept > 0)).sum().item()
    ours = torch.autograd.grad(summed * 0.37, (states, table, bias))
    theirs = torch.autograd.grad(expected * 0.37, (states, table, bias))
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)


def test_an_improbable_label_has_its_true_loss_not_infinity():
    table, states = torch.tensor([[0.0], [500.0]]), torch.ones(1, 1)
    summed, _ = vocabulary_loss(states, table, torch.zeros(2), torch.tensor([0]), None)
    assert summed.item() == 500.0


@pytest.mark.usefixtures("_chunked")
def test_under_bf16_autocast_loss_is_fp32_and_gradients_have_the_dtype_of_their_tensors():
    states, table, bias, labels = drawn(40)
    low = states.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed, _ = vocabulary_loss(low, table, bias, labels, None)
    exact, _ = vocabulary_loss(states, table, bias, labels, None)
    assert summed.dtype == torch.float32
    assert summed.item() == pytest.approx(exact.item(), rel=0.02)
    d_states, d_table, d_bias = torch.autograd.grad(summed, (low, table, bias))
    assert (d_states.dtype, d_table.dtype, d_bias.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_no_gradient_is_computed_where_none_is_asked_for():
    states, table, bias, labels = drawn(20)
    with torch.no_grad():
        summed, _ = vocabulary_loss(states, table, bias, labels, None)
    assert not summed.requires_grad


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
    assert head.bias[VOCABULARY:].eq(NEVER).all()


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


def peak_bytes(work):
    """Most bytes that torch held on the CPU while `work` ran, above what it held before."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    held = peak = 0
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def test_memory_of_the_vocabulary_loss_grows_with_positions_plus_vocabulary_and_not_with_their_product(monkeypatch):
    rows, width, chunk = 4096, 16, 1 << 16
    monkeypatch.setitem(heads._CHUNK_LOGITS, "cpu", chunk)
    table, bias = torch.randn(rows, width, requires_grad=True), torch.zeros(rows, requires_grad=True)

    def step(positions, loss):
        states = torch.randn(positions, width, requires_grad=True)
        labels = torch.randint(0, rows, (positions,))
        return lambda: loss(states, labels).backward()

    def ours(states, labels):
        return vocabulary_loss(states, table, bias, labels, None)[0]

    def whole(states, labels):
        return F.cross_entropy(F.linear(states, table, bias), labels, reduction="sum")

    step(64, ours)()  # the gradients of table and bias exist from here on
    few, many = (peak_bytes(step(positions, ours)) for positions in (256, 1024))
    assert many - few < 4 * 1024 * width * 4  # a few copies of the states' gradient
    assert many < 8 * 4 * chunk + 4 * 4 * table.numel() + 16 * 1024 * width
    assert peak_bytes(step(1024, whole)) > 2 * 4 * 1024 * rows  # logits and their gradient: the measure sees them


def test_nothing_of_the_size_of_the_logits_is_kept_for_the_backward_pass(monkeypatch):
    monkeypatch.setitem(heads._CHUNK_LOGITS, "cpu", 16 * ROWS)
    states, table, bias, labels = drawn(200)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vocabulary_loss(states, table, bias, labels, None)
    assert sum(kept) == states.numel() + table.numel() + bias.numel()
