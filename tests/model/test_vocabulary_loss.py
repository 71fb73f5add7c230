"""The vocabulary loss in chunks is cross-entropy, and only chunks that score something are computed."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.model import optimizations
from ernie2.model import vocabulary_loss as module
from ernie2.model.compiling import compile_function
from ernie2.model.heads import PADDING_BIAS
from ernie2.model.vocabulary_loss import chunk_rows, score_chunk, vocabulary_loss

WIDTH, ROWS, WORDS = 24, 128, 70  # rows of the table, of which 70 are words
FORMS = {
    "softmax": module._score_by_softmax,
    "log-sum-exp": module._score_by_logsumexp,
    "tiles": lambda logits, *given: module._score_tiles(logits.clone(), *given),
}


def drawn(positions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(positions, WIDTH, generator=generator, requires_grad=True)
    table = torch.randn(ROWS, WIDTH, generator=generator, requires_grad=True)
    bias = torch.randn(ROWS, generator=generator, requires_grad=True)
    labels = torch.randint(0, WORDS, (positions,), generator=generator)
    return states, table, bias, labels


def static_weights(positions, count):
    """1 for the first `count` of `positions`, as the inputs of static shape have it."""
    return (torch.arange(positions) < count).float()


def reference(states, table, bias, labels, weights):
    """Loss and gradients by torch's own cross-entropy in float64."""
    leaves = [each.detach().double().requires_grad_() for each in (states, table, bias)]
    losses = F.cross_entropy(F.linear(*leaves), labels, reduction="none")
    loss = (losses * (1 if weights is None else weights.double())).sum()
    return loss.detach(), torch.autograd.grad(loss, leaves)


def assert_agrees(ours, states, table, bias, labels, weights):
    exact, gradients = reference(states, table, bias, labels, weights)
    torch.testing.assert_close(ours.double(), exact, atol=1e-4, rtol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours, (states, table, bias)), gradients, strict=True):
        torch.testing.assert_close(mine.double(), theirs, atol=2e-5, rtol=2e-5)


@settings(max_examples=40)
@given(
    positions=st.integers(1, 60), share=st.floats(0, 1), most=st.sampled_from([8, 16, 24, 1024]), static=st.booleans()
)
def test_loss_and_gradients_are_those_of_cross_entropy(positions, share, most, static):
    states, table, bias, labels = drawn(positions)
    count = max(1, round(share * positions)) if static else positions
    weights = static_weights(positions, count) if static else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._MAX_CHUNK_ROWS, "cpu", most)
        summed, right = vocabulary_loss(states, table, bias, labels, weights, count)
    best = F.linear(states, table, bias).argmax(-1)
    assert right.item() == (best == labels)[:count].sum().item()
    assert_agrees(summed, states, table, bias, labels, weights)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighed", [False, True])
def test_every_form_scores_a_chunk_as_float64_does(form, dtype, weighed, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", 6)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40, ROWS, generator=generator) * torch.logspace(-2, 2, 40)[:, None]
    logits[:, WORDS:] += PADDING_BIAS
    logits[3, :WORDS], logits[4, 7], logits[5, 7] = 0.0, 3e4, -3e4  # all words alike; one sure; one impossible
    logits = logits.to(dtype)
    answer = torch.randint(0, WORDS, (40, 1), generator=generator)
    answer[4:6] = 7
    weight = (torch.arange(40) % 3 != 1).float() if weighed else None
    exact = logits.double()
    odds = torch.softmax(exact, -1)
    expected = odds.scatter_add(1, answer, -torch.ones(40, 1, dtype=torch.float64))
    losses = torch.logsumexp(exact, -1) - exact.gather(1, answer).squeeze(1)
    right = (exact.float().argmax(-1, keepdim=True) == answer).squeeze(1)
    if weight is not None:
        expected, losses, right = expected * weight[:, None], losses * weight, right & (weight > 0)
    summed, counted, (gradient, sums) = FORMS[form](logits, answer, weight, True)
    assert (summed.dtype, gradient.dtype, sums.dtype) == (torch.float32, dtype, torch.float32)
    torch.testing.assert_close(summed.double(), losses.sum(), atol=0, rtol=1e-6)
    assert counted.item() == right.sum().item()
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected, atol=1e-6, rtol=max(rounding, 2e-6))
    torch.testing.assert_close(sums.double(), gradient.double().sum(0), atol=1e-6, rtol=1e-6)
    assert gradient[:, WORDS:].eq(0).all()
    assert FORMS[form](logits, answer, weight, False)[2] is None


@pytest.mark.parametrize("optimization", ["vocabulary_tiles", "vocabulary_skip_padding"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_an_optimization_the_result_is_the_same(optimization, dtype, monkeypatch):
    monkeypatch.setitem(module._MAX_CHUNK_ROWS, "cpu", 16)
    monkeypatch.setattr(module, "_TILE_ROWS", 6)
    results = []
    for off in ((), (optimization,)):
        states, table, bias, labels = drawn(50)
        with optimizations.disabled(*off), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
            summed, right = vocabulary_loss(states, table, bias, labels, static_weights(50, 30), 30)
        results.append((summed, right, *torch.autograd.grad(summed, (states, table, bias))))
    for on, without in zip(*results, strict=True):
        torch.testing.assert_close(on, without, atol=1e-6, rtol=1e-5)


def test_the_compiled_form_follows_its_optimization():
    states, table, bias, labels = drawn(32)
    weights, exact = static_weights(32, 30), reference(*drawn(32), static_weights(32, 30))
    for off in ((), ("vocabulary_logsumexp",)):
        torch._dynamo.reset()
        used = []
        score = compile_function(score_chunk, lambda graph, _: used.append(graph.code) or graph.forward)  # noqa: B023
        with optimizations.disabled(*off):
            summed, _ = vocabulary_loss(states, table, bias, labels, weights, 30, score)
        assert ("softmax" in used[0]) == bool(off)
        torch.testing.assert_close(summed.detach().double(), exact[0], atol=1e-4, rtol=1e-6)
        assert_agrees(summed, states, table, bias, labels, weights)


@pytest.mark.parametrize(("count", "chunks"), [(1, 1), (16, 1), (17, 2), (33, 3), (64, 4)])
def test_chunks_of_padding_only_are_not_computed(count, chunks, monkeypatch):
    monkeypatch.setitem(module._MAX_CHUNK_ROWS, "cpu", 16)
    seen = []

    def score(logits, *arguments):
        seen.append(len(logits))
        return score_chunk(logits, *arguments)

    states, table, bias, labels = drawn(64)
    weights = static_weights(64, count)
    summed, _ = vocabulary_loss(states, table, bias, labels, weights, count, score)
    assert seen == [16] * chunks
    assert_agrees(summed, states, table, bias, labels, weights)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_varying_counts_do_not_recompile(backend, monkeypatch):
    monkeypatch.setitem(module._MAX_CHUNK_ROWS, "cpu", 16)
    torch._dynamo.reset()
    score = compile_function(score_chunk, backend)
    states, table, bias, labels = drawn(60)  # 4 chunks of 16, the last padded
    vocabulary_loss(states, table, bias, labels, static_weights(60, 60), 60, score)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for count in (60, 1, 15, 31, 49, 59, 60):
            weights = static_weights(60, count)
            summed, _ = vocabulary_loss(states, table, bias, labels, weights, count, score)
            assert_agrees(summed, states, table, bias, labels, weights)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("positions", "vocabulary", "device", "static", "rows"),
    [
        (16_384, 30_528, "cuda", True, 2048),  # 8 equal chunks
        (9_831, 30_528, "cuda", True, 1968),  # 5 chunks of 1,966.2, a multiple of 8
        (2_049, 30_528, "cuda", True, 1032),  # 2 chunks, not 2,048 and 1
        (16_384, 250_048, "cuda", True, 272),  # 2^26 logits are 268 rows: 62 chunks of 264.3, a multiple of 8
        (614, 30_528, "cpu", False, 614),
        (1_500, 30_528, "cpu", False, 750),
        (1, 30_528, "cpu", False, 1),
        (1, 30_528, "cuda", True, 8),
        (100, 1 << 30, "cpu", False, 8),
    ],
)
def test_rows_of_a_chunk(positions, vocabulary, device, static, rows):
    assert chunk_rows(positions, vocabulary, device, static) == rows


@given(st.integers(1, 100_000), st.integers(64, 300_000), st.sampled_from(["cpu", "cuda"]), st.booleans())
def test_chunks_are_as_few_and_as_equal_as_can_be(positions, vocabulary, device, static):
    most = min(module._MAX_CHUNK_ROWS[device], max(8, module._MAX_CHUNK_LOGITS // vocabulary))
    rows = chunk_rows(positions, vocabulary, device, static)
    chunks = -(-positions // rows)
    assert chunks <= -(-positions // most)
    assert rows < most + 8
    assert chunks * rows - positions < (8 * chunks if static else rows)


def test_an_improbable_label_has_its_true_loss_not_infinity():
    table, states = torch.tensor([[0.0], [500.0]]), torch.ones(1, 1)
    summed, _ = vocabulary_loss(states, table, torch.zeros(2), torch.tensor([0]), None, 1)
    assert summed.item() == 500.0


@pytest.mark.parametrize("most", [16, 1024])
def test_under_bf16_autocast_loss_is_fp32_and_gradients_have_the_dtype_of_their_tensors(most, monkeypatch):
    monkeypatch.setitem(module._MAX_CHUNK_ROWS, "cpu", most)
    states, table, bias, labels = drawn(40)
    low = states.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        summed, _ = vocabulary_loss(low, table, bias, labels, None, 40)
    exact, _ = vocabulary_loss(states, table, bias, labels, None, 40)
    assert summed.dtype == torch.float32
    assert summed.item() == pytest.approx(exact.item(), rel=0.02)
    d_states, d_table, d_bias = torch.autograd.grad(summed, (low, table, bias))
    assert (d_states.dtype, d_table.dtype, d_bias.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_no_gradient_is_computed_unless_required():
    states, table, bias, labels = drawn(20)
    with torch.no_grad():
        summed, _ = vocabulary_loss(states, table, bias, labels, None, 20)
    assert not summed.requires_grad


def test_a_second_backward_pass_is_an_error_and_not_a_wrong_gradient():
    states, table, bias, labels = drawn(20)
    summed, _ = vocabulary_loss(states, table, bias, labels, None, 20)
    (summed * 0.5).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        summed.backward()


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


def test_memory_grows_with_positions_plus_vocabulary_and_not_with_their_product(monkeypatch):
    rows, width, chunk = 4096, 16, 1 << 16
    monkeypatch.setattr(module, "_MAX_CHUNK_LOGITS", chunk)
    table, bias = torch.randn(rows, width, requires_grad=True), torch.zeros(rows, requires_grad=True)

    def step(positions, loss):
        states = torch.randn(positions, width, requires_grad=True)
        labels = torch.randint(0, rows, (positions,))
        return lambda: loss(states, labels).backward()

    def ours(states, labels):
        return vocabulary_loss(states, table, bias, labels, None, len(states))[0]

    def whole(states, labels):
        return F.cross_entropy(F.linear(states, table, bias), labels, reduction="sum")

    step(64, ours)()  # the gradients of table and bias exist from here on
    few, many = (peak_bytes(step(positions, ours)) for positions in (256, 1024))
    assert many - few < 4 * 1024 * width * 4  # a few copies of the states' gradient
    assert many < 4 * 4 * chunk + 2 * 4 * table.numel() + 16 * 1024 * width
    assert peak_bytes(step(1024, whole)) > 2 * 4 * 1024 * rows  # logits and their gradient: the measure sees them


def test_nothing_of_logits_size_is_saved_for_the_backward_pass(monkeypatch):
    monkeypatch.setitem(module._MAX_CHUNK_ROWS, "cpu", 16)
    states, table, bias, labels = drawn(200)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vocabulary_loss(states, table, bias, labels, None, 200)
    assert sum(kept) == states.numel() + table.numel() + bias.numel()
