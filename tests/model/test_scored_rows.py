"""The last layer at scored rows only gives what it gives at all rows, in losses, predictions and every gradient."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.batches.batch import Targets
from ernie2.datasets.examples import Head
from ernie2.finetuning.encoding import TARGET_NAME
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.model import encoder as encoder_module
from ernie2.model import optimizations
from ernie2.model.attention import plan as plan_module
from ernie2.model.attention.plan import AttentionPlan
from ernie2.model.encoder import Encoder
from ernie2.model.heads import HeadSpec
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.scored_rows import choose_rows
from model_packs import VOCABULARY, make_pack, small_settings, with_targets

SPECS = (HeadSpec("masking", "token", None), HeadSpec("order", "sentence", 5))
KERNELS = ("padded", "packed")


def targets_of(positions, classes=2, room=0, seed=0):
    labels = np.random.default_rng(seed).integers(0, classes, len(positions))
    padding = np.zeros(room, np.int64)
    return Targets(
        np.concatenate([positions, padding]).astype(np.int32), np.concatenate([labels, padding]), len(positions)
    )


def scored_pack(lengths, tasks=("masking", "order"), tail=0, room=0, share=0.2):
    """A pack in which few tokens are scored; `room` places of padding for each task."""
    pack = make_pack(lengths, tail=tail, tasks=())
    chosen = np.flatnonzero(np.random.default_rng(5).random(sum(lengths)) < share)
    chosen = chosen if len(chosen) else np.array([0])
    positions = {"masking": chosen, "order": pack.starts[:-1]}
    classes = {"masking": VOCABULARY, "order": 5}
    return with_targets(pack, {name: targets_of(positions[name], classes[name], room) for name in tasks})


def test_rows_are_the_union_of_scored_positions_by_sequence():
    pack = with_targets(make_pack([4, 4], tasks=()), {"a": targets_of([5, 0]), "b": targets_of([0, 6])})
    choice = choose_rows(pack, 8, pack.starts, static=False)
    assert choice.index.tolist() == [0, 5, 6]
    assert choice.starts.tolist() == [0, 1, 3]
    assert {name: place.tolist() for name, place in choice.places.items()} == {"a": [1, 0], "b": [0, 2]}


def test_all_rows_are_computed_if_most_or_none_are_scored():
    pack = make_pack([4, 4], tasks=())
    for positions, rows in (([0, 1, 2, 3], 4), ([0, 1, 2, 3, 4], None), ([], None)):
        choice = choose_rows(with_targets(pack, {"a": targets_of(positions)}), 8, pack.starts, static=False)
        assert (None if choice is None else len(choice.index)) == rows


def test_where_shapes_are_static_unscored_tokens_fill_the_rows_up_to_few_sizes():
    pack = with_targets(make_pack([400], tail=240, tasks=()), {"a": targets_of([7, 3, 1], room=2)})
    starts = np.array([0, 400, 640], np.int32)
    choice = choose_rows(pack, 640, starts, static=True)  # a multiple of 640 / 64
    assert choice.index.tolist() == [1, 3, 7, *range(633, 640)]
    assert choice.starts.tolist() == [0, 3, 10]
    assert choice.places["a"].tolist() == [2, 1, 0, 0, 0]


def results(model, inputs, tasks=None):
    """Losses, predictions and all gradients."""
    model.zero_grad(set_to_none=True)
    made = model(inputs)
    sum(task.sum * (1 + number) for number, task in enumerate(made.values())).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    numbers = {name: task.sum.detach() for name, task in made.items()}
    losses = {name: each[0] for name, each in model.predictions(inputs).items()}
    return {"losses": numbers, "gradients": gradients, "predicted": losses}


def assert_same(model, inputs, near, rows=True):
    assert (inputs.rows is not None) == rows
    with optimizations.disabled("scored_rows"):
        plain = results(model, inputs)
    torch.testing.assert_close(results(model, inputs), plain, atol=near, rtol=near)


def varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """The packed kernel, written for a CPU; no sequence has more queries or keys than it was told."""
    assert int(cu_seq_q.diff().max()) <= max_q
    assert int(cu_seq_k.diff().max()) <= max_k
    asks, owner = (
        torch.bucketize(torch.arange(len(each)), starts[1:].long(), right=True)
        for each, starts in ((query, cu_seq_q), (key, cu_seq_k))
    )
    scores = torch.einsum("tnd,und->ntu", query, key) / query.shape[-1] ** 0.5
    odds = scores.masked_fill(asks[:, None] != owner, -torch.inf).softmax(-1)
    return torch.einsum("ntu,und->tnd", odds, value)


@pytest.fixture(params=KERNELS)
def _kernel(request, monkeypatch):
    if request.param == "padded":
        return

    def plan(inputs, dtype, settings, *facts):
        return AttentionPlan("packed", settings.heads, inputs.starts, inputs.longest, packed=varlen)

    monkeypatch.setattr(encoder_module, "plan_attention", plan)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("tasks", [("masking", "order"), ("order",), ("masking",)])
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_losses_predictions_and_gradients_equal_those_of_all_rows_in_fp64(static, tasks, activation_checkpointing):
    pack = scored_pack([20, 7, 7, 33, 1, 50], tasks, tail=10, room=4)
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4).double().train()
    model.encoder.activation_checkpointing = activation_checkpointing
    # the losses of heads are float32, whatever the model computes in
    assert_same(model, Inputs.from_batch(pack, "cpu", static), near=1e-6)


def test_full_rows_in_one_group_give_what_all_rows_give(monkeypatch):
    monkeypatch.setattr(plan_module, "choose_kernel", lambda *facts: "dense")
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4).double().train()
    inputs = Inputs.from_batch(scored_pack([20] * 6, ("masking", "order")), "cpu", static=False)
    assert plan_module.plan_attention(inputs, torch.float64, small_settings(), True, inputs.rows).groups.tokens is None
    assert_same(model, inputs, near=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.floats(0.05, 0.5), st.integers(0, 9))
def test_hidden_states_and_gradients_equal_those_of_all_rows_however_sequences_lie(lengths, share, seed):
    inputs = Inputs.from_batch(scored_pack(lengths, ("masking",), share=share), "cpu", static=False)
    if inputs.rows is None:
        return
    encoder = Encoder(small_settings(), VOCABULARY, seed=seed).double()
    weights = torch.randn(len(inputs.rows.index), 24, dtype=torch.float64)
    both = []
    for wanted in (True, False):
        encoder.zero_grad(set_to_none=True)
        hidden = encoder(inputs, inputs.rows) if wanted else encoder(inputs).index_select(0, inputs.rows.index)
        (hidden * weights).sum().backward()
        both.append((hidden.detach(), {n: p.grad.clone() for n, p in encoder.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(both[0], both[1], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_recurrent_encoder_gives_the_scored_rows_of_all_it_computes(kind):
    model = MultiTaskModel(small_settings(kind=kind), VOCABULARY, SPECS, seed=4)
    assert_same(model, Inputs.from_batch(scored_pack([20, 7, 33]), "cpu", False), near=1e-5)


def test_the_last_layer_computes_scored_rows_only():
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4)
    seen = []
    for layer in model.encoder.layers:
        layer.ffn.register_forward_hook(lambda module, given, hidden: seen.append(len(hidden)))
    model(Inputs.from_batch(scored_pack([20, 7, 33], ("order",)), "cpu", False))
    assert seen == [60, 3]


@pytest.mark.parametrize("head", ["classification", "regression", "multi_label"])
def test_fine_tuning_reads_first_tokens_only(head: Head):
    pack = make_pack([20, 7, 33], tasks=())
    labels = {"classification": np.array([0, 2, 1]), "regression": np.array([0.5, 1, 2], np.float32)}
    labels["multi_label"] = np.eye(3, dtype=np.float32)
    pack = with_targets(pack, {TARGET_NAME: Targets(pack.starts[:-1], labels[head], 3)})
    inputs = Inputs.from_batch(pack, "cpu", static=False)
    model = EncoderWithHead(Encoder(small_settings(), VOCABULARY), head, 1 if head == "regression" else 3, dropout=0.0)
    seen = []
    model.encoder.layers[-1].register_forward_hook(lambda module, given, hidden: seen.append(len(hidden)))
    both = []
    for off in ((), ("scored_rows",)):
        with optimizations.disabled(*off):
            model.zero_grad(set_to_none=True)
            loss = model(inputs)[TARGET_NAME].sum
            loss.backward()
            both.append((loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    assert seen == [3, 60]
    torch.testing.assert_close(both[0], both[1], atol=1e-5, rtol=1e-5)


def test_tags_spans_and_means_read_all_rows():
    pack = make_pack([20, 7, 33], tasks=())
    inputs = Inputs.from_batch(with_targets(pack, {TARGET_NAME: targets_of(pack.starts[:-1])}), "cpu", static=False)
    assert inputs.rows is not None
    for head, pooling in (("tagging", "first"), ("span", "first"), ("classification", "mean")):
        model = EncoderWithHead(Encoder(small_settings(), VOCABULARY), head, 3, pooling=pooling)
        seen = []
        model.encoder.register_forward_hook(lambda module, given, hidden, seen=seen: seen.append(len(hidden)))
        model.scores(inputs)
        assert seen == [60]


def test_a_step_with_attention_dropout_stays_finite():
    model = MultiTaskModel(small_settings(dropout=0.1, attention_dropout=0.5), VOCABULARY, SPECS, seed=4)
    made = results(model, Inputs.from_batch(scored_pack([20, 7, 33, 1]), "cpu", False))
    assert all(torch.isfinite(gradient).all() for gradient in made["gradients"].values())


def test_a_pack_without_rows_is_as_it_was():
    inputs = Inputs.from_batch(scored_pack([20, 7, 33]), "cpu", False)
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=4)
    with optimizations.disabled("scored_rows"):
        plain = results(model, inputs)
    torch.testing.assert_close(results(model, dataclasses.replace(inputs, rows=None)), plain, atol=0, rtol=0)
