"""The encoder: parameters, initialisation, and independence of sequences."""

from __future__ import annotations

import pytest
import torch

from ernie2.model.encoder import Encoder, padded_rows
from ernie2.model.encoders import build_encoder
from ernie2.model.inputs import Inputs
from ernie2.model.layers import ACTIVATIONS
from ernie2.model.norm import PostNorm
from ernie2.model.parameters import generator_for
from model_packs import make_pack, only_sequences, small_settings


def hidden_of(encoder, batch, static=False):
    return encoder(Inputs.from_batch(batch, "cpu", static))


@pytest.mark.parametrize(("pieces", "rows"), [(1, 64), (64, 64), (65, 128), (30522, 30528)])
def test_the_word_table_has_a_multiple_of_64_rows(pieces, rows):
    assert padded_rows(pieces) == rows


def test_parameters_have_clear_names():
    names = {name for name, _ in Encoder(small_settings(layers=1), 128).named_parameters()}
    parts = ["attention.qkv", "attention.output", "attention.norm", "ffn.inner", "ffn.outer", "ffn.norm"]
    assert names == {
        *(f"embeddings.{table}.weight" for table in ("token", "position", "segment", "task")),
        *(f"{part}.{kind}" for part in ("embeddings.norm", "pooler") for kind in ("weight", "bias")),
        *(f"layers.0.{part}.{kind}" for part in parts for kind in ("weight", "bias")),
    }


def test_without_task_ids_there_is_no_task_table():
    assert "embeddings.task.weight" not in Encoder(small_settings(task_ids=0), 128).state_dict()


def test_weights_start_normal_biases_0_norms_1_and_0():
    encoder = Encoder(small_settings(hidden=96, init_std=0.05), 640, seed=1)
    for name, parameter in encoder.named_parameters():
        if name.endswith("norm.weight"):
            assert parameter.eq(1).all()
        elif name.endswith("bias"):
            assert parameter.eq(0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.05, rel=0.1)


def test_a_start_is_a_function_of_the_seed_and_touches_no_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, same, other = (Encoder(small_settings(), 128, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.pooler.weight, other.pooler.weight)


def test_a_deeper_encoder_starts_with_the_same_first_layers():
    shallow, deep = Encoder(small_settings(layers=1), 128), Encoder(small_settings(layers=3), 128)
    assert torch.equal(shallow.layers[0].ffn.inner.weight, deep.layers[0].ffn.inner.weight)
    assert not torch.equal(deep.layers[0].ffn.inner.weight, deep.layers[1].ffn.inner.weight)


def test_generators_differ_by_name():
    assert generator_for(0, "a", "b").initial_seed() != generator_for(0, "ab").initial_seed()
    assert generator_for(1, "a").initial_seed() != generator_for(0, "a").initial_seed()


def test_the_encoding_of_a_sequence_does_not_depend_on_the_others_or_the_order():
    encoder = Encoder(small_settings(), 128).eval()
    batch = make_pack([5, 1, 40, 12])
    together = hidden_of(encoder, batch).split([5, 1, 40, 12])
    turned = hidden_of(encoder, only_sequences(batch, [2, 0, 3, 1])).split([40, 5, 12, 1])
    for place, i in enumerate([2, 0, 3, 1]):
        alone = hidden_of(encoder, only_sequences(batch, [i]))
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(together[i], turned[place], atol=1e-6, rtol=1e-5)


def test_the_padding_tail_does_not_change_real_tokens():
    encoder = Encoder(small_settings(), 128).eval()
    batch = make_pack([5, 9], tail=70)
    static = hidden_of(encoder, batch, static=True)
    torch.testing.assert_close(static[:14], hidden_of(encoder, batch), atol=1e-6, rtol=1e-5)
    assert static.isfinite().all()


def test_sequences_of_one_token_give_numbers():
    encoder = Encoder(small_settings(), 128)
    hidden = hidden_of(encoder, make_pack([1, 1, 1]))
    hidden.sum().backward()
    assert hidden.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_residual_stream_has_16_bits_and_stays_close_to_fp32(dtype):
    encoder = Encoder(small_settings(), 128).eval()
    batch = make_pack([5, 20, 7])
    exact = hidden_of(encoder, batch)
    with torch.autocast("cpu", dtype=dtype):
        rough = hidden_of(encoder, batch)
    assert rough.dtype == dtype
    torch.testing.assert_close(rough.float(), exact, atol=0.06, rtol=0.05)


def test_norms_sum_and_take_statistics_in_float32():
    norm = PostNorm(64)
    stream = torch.full((1, 64), 256.0, dtype=torch.bfloat16)
    branch = torch.linspace(-0.5, 0.5, 64).bfloat16()[None]  # lost where 256 + x is rounded to 8 bits
    made = norm.after(stream, branch)
    expected = torch.nn.functional.layer_norm(branch.double(), (64,))
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.double(), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_activations_are_those_of_transformers(activation):
    from transformers.activations import ACT2FN

    values = torch.linspace(-6, 6, 1001)
    torch.testing.assert_close(ACTIVATIONS[activation](values), ACT2FN[activation](values), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("kind", "attention_dropout"), [("transformer", 0.0), ("transformer", 0.2), ("lstm", 0.0)])
def test_recomputing_layers_changes_neither_masks_nor_gradients_and_keeps_less(kind, attention_dropout):
    settings = small_settings(kind=kind, layers=3, dropout=0.3, attention_dropout=attention_dropout)
    inputs = Inputs.from_batch(make_pack([5, 20, 7]), "cpu", static=False)
    runs = []
    for activation_checkpointing in (False, True):
        encoder = build_encoder(settings, 128)
        encoder.activation_checkpointing = activation_checkpointing
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel() * tensor.element_size())
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = encoder(inputs)
        after = torch.rand(1)
        hidden.square().sum().backward()
        gradients = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
        runs.append((hidden, after, gradients, sum(kept)))
    (one, rest, gradients, much), (other, same, recomputed, little) = runs
    assert torch.equal(one, other)
    assert torch.equal(rest, same)
    assert gradients.keys() == recomputed.keys()
    assert all(torch.equal(gradient, recomputed[name]) for name, gradient in gradients.items())
    assert little < much / 2
