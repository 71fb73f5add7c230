"""The recurrent encoder: same interface and heads, and independence of sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.model.encoder import Encoder
from ernie2.model.encoders import build_encoder
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.model.rnn import RecurrentEncoder, plan_recurrence
from model_packs import SPECS, VOCABULARY, make_pack, only_sequences, small_settings

KINDS = ("lstm", "gru")


def recurrent(kind, **changes):
    return build_encoder(small_settings(kind=kind, **changes), 128, seed=1)


def hidden_of(encoder, batch, static=False):
    return encoder(Inputs.from_batch(batch, "cpu", static))


def test_the_setting_chooses_the_encoder():
    assert type(recurrent("transformer")) is Encoder
    assert all(type(recurrent(kind)) is RecurrentEncoder for kind in KINDS)


def test_tokens_lie_in_order_of_time_longest_sequence_first():
    plan = plan_recurrence([2, 3], torch.device("cpu"))
    assert plan.gather.tolist() == [2, 0, 3, 1, 4]
    assert plan.scatter.tolist() == [1, 3, 0, 2, 4]
    assert plan.sizes.tolist() == [2, 2, 1]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_tokens_are_ordered_by_time_longest_sequence_first(lengths):
    plan = plan_recurrence(lengths, torch.device("cpu"))
    begins = [sum(lengths[:i]) for i in range(len(lengths))]
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    order = [begins[i] + time for time in range(max(lengths)) for i in longest_first if time < lengths[i]]
    assert plan.gather.tolist() == order
    assert plan.sizes.tolist() == [sum(length > time for length in lengths) for time in range(max(lengths))]
    assert plan.gather[plan.scatter].tolist() == list(range(sum(lengths)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_the_recurrence_of_torch_with_residual_and_norm(kind):
    encoder = recurrent(kind, layers=1).eval()
    batch = make_pack([5, 1, 9])
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    before, after = encoder.embeddings(*inputs.ids), encoder(inputs)
    layer = encoder.layers[0]
    for part, made in zip(before.split([5, 1, 9]), after.split([5, 1, 9]), strict=True):
        states, _ = layer.recurrence(part[:, None])
        expected = torch.nn.functional.layer_norm(part + states[:, 0], (24,))
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 9))
def test_encoding_and_gradients_of_a_sequence_do_not_depend_on_the_others(kind, lengths, seed):
    encoder, batch = recurrent(kind), make_pack(lengths, seed=seed)
    together = hidden_of(encoder, batch)
    together.square().sum().backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    alone = torch.cat([hidden_of(encoder, only_sequences(batch, [i])) for i in range(len(lengths))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    alone.square().sum().backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, encoder.get_parameter(name).grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_later_reaches_back_and_no_other_sequence_does(kind):
    encoder = recurrent(kind).eval()
    batch = make_pack([6, 4])
    before = hidden_of(encoder, batch)
    batch.tokens[5] = (batch.tokens[5] + 1) % VOCABULARY  # the last token of the first sequence
    changed = (hidden_of(encoder, batch) - before).abs().amax(-1) > 0
    assert changed[:6].all()
    assert not changed[6:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_padding_tail_does_not_change_real_tokens(kind):
    encoder, batch = recurrent(kind).eval(), make_pack([5, 9], tail=70)
    static = hidden_of(encoder, batch, static=True)
    torch.testing.assert_close(static[:14], hidden_of(encoder, batch), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_is_a_function_of_the_seed_and_touches_no_global_generator(kind):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same = (build_encoder(small_settings(kind=kind), 128, seed=1) for _ in range(2))
    other = build_encoder(small_settings(kind=kind), 128, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    weight = "layers.0.recurrence.weight_hh_l0"
    assert not torch.equal(one.get_parameter(weight), other.get_parameter(weight))
    assert one.get_parameter(weight).abs().max() <= 12**-0.5


def test_the_forget_gate_of_an_lstm_starts_open_and_all_other_biases_at_0():
    for name, parameter in recurrent("lstm").named_parameters():
        if "bias_ih" in name:
            assert parameter.tolist() == [0.0] * 12 + [1.0] * 12 + [0.0] * 24
        elif "bias_hh" in name:
            assert parameter.eq(0).all()
    assert all(p.eq(0).all() for name, p in recurrent("gru").named_parameters() if "bias_" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_under_bf16_autocast_it_stays_close_to_fp32(kind):
    encoder, batch = recurrent(kind).eval(), make_pack([5, 20, 7])
    exact = hidden_of(encoder, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = hidden_of(encoder, batch)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_all_heads_learn_a_few_sequences_by_heart(kind):
    model = MultiTaskModel(small_settings(kind=kind, dropout=0.0, init_std=0.1), VOCABULARY, SPECS, seed=4)
    inputs = Inputs.from_batch(make_pack([9, 1, 30, 4, 17]), "cpu", static=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    told = []
    for _ in range(60):
        losses = {name: loss.sum / loss.count for name, loss in model(inputs).items()}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        told.append({name: loss.item() for name, loss in losses.items()})
    assert all(told[-1][name] < 0.3 * first for name, first in told[0].items()), (told[0], told[-1])
