"""Every variant of the encoder is what a plain implementation of it is, packed, padded, and at scored rows only."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ernie2.benchmarking.flops import encoder_flops
from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError
from ernie2.model import optimizations
from ernie2.model.encoder import PaddedEncoder
from ernie2.model.encoders import build_encoder
from ernie2.model.formats.loading import load_model
from ernie2.model.formats.native import ModelDescription, save_native
from ernie2.model.hf import hf_config, unsupported_by_hf
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel, model_tensors
from ernie2.training.memory import estimate
from model_packs import SPECS, VOCABULARY, make_pack, only_sequences, small_settings

LENGTHS = [9, 1, 30, 4, 4, 17]
VARIANTS = [
    {"norm": norm, "feed_forward": feed_forward, "positions": positions, "activation": activation}
    for (norm, feed_forward, positions), activation in zip(
        itertools.product(("post", "pre"), ("plain", "gated"), ("learned", "none", "rotary")),
        itertools.cycle(["gelu", "relu"]),
        strict=False,
    )
]
RECURRENT = [{"kind": kind, "norm": norm, "positions": "none"} for kind in ("lstm", "gru") for norm in ("post", "pre")]


def of(variant):
    """Heads of an even width, as rotary positions need it; weights large enough that every part counts."""
    return small_settings(**{"init_std": 0.3, "heads": 2, **variant})


def plain(encoder, settings: EncoderSettings, ids: list[torch.Tensor]):
    """One text, ids each (L,): every formula written out with the parameters of `encoder` -> (L, H)."""
    p = dict(encoder.named_parameters())
    hidden, heads = settings.hidden, settings.heads

    def norm(x, name):
        return F.layer_norm(x, (hidden,), p[f"{name}.weight"], p[f"{name}.bias"], settings.norm_eps)

    def linear(x, name):
        return x @ p[f"{name}.weight"].t() + p[f"{name}.bias"]

    def turned(x):  # (N, L, D): the pair (i, i + D / 2) as a complex number, times e^(i · angle)
        half = x.shape[-1] // 2
        rates = 10_000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
        angles = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * rates
        made = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angles)
        return torch.cat([made.real, made.imag], -1)

    def attention(x, name):
        query, key, value = linear(x, f"{name}.qkv").view(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        if settings.positions == "rotary":
            query, key = turned(query), turned(key)
        odds = (query @ key.transpose(1, 2) / math.sqrt(hidden // heads)).softmax(-1)
        return linear((odds @ value).transpose(0, 1).reshape(len(x), hidden), f"{name}.output")

    def feed_forward(x, name):
        activation = {"gelu": F.gelu, "relu": F.relu}[settings.activation]
        wide = linear(x, f"{name}.inner")
        if settings.feed_forward == "gated":
            wide = activation(wide[:, : settings.ffn_width]) * wide[:, settings.ffn_width :]
        else:
            wide = activation(wide)
        return linear(wide, f"{name}.outer")

    tokens, segments, positions, task_ids = ids
    x = p["embeddings.token.weight"][tokens] + p["embeddings.segment.weight"][segments]
    x = x + p["embeddings.task.weight"][task_ids]
    if settings.positions == "learned":
        x = x + p["embeddings.position.weight"][positions]
    x = norm(x, "embeddings.norm")
    for layer in range(settings.layers):
        for branch, name in ((attention, "attention"), (feed_forward, "ffn")):
            name = f"layers.{layer}.{name}"
            if settings.norm == "pre":
                x = x + branch(norm(x, f"{name}.norm"), name)
            else:
                x = norm(x + branch(x, name), f"{name}.norm")
    return norm(x, "final_norm") if settings.norm == "pre" else x


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_a_variant_is_its_formula_written_out_in_outputs_and_gradients(variant):
    settings = of(variant)
    encoder = build_encoder(settings, 128, seed=2).double()
    inputs = Inputs.from_batch(make_pack(LENGTHS), "cpu", static=False)
    given = [ids.split(LENGTHS) for ids in inputs.ids]
    expected = torch.cat([plain(encoder, settings, list(each)) for each in zip(*given, strict=True)])
    hidden = encoder(inputs)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)  # angles are float32
    used = {name: p for name, p in encoder.named_parameters() if not name.startswith("pooler")}
    gradients = (torch.autograd.grad(each.square().sum(), list(used.values())) for each in (hidden, expected))
    for name, ours, theirs in zip(used, *gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4, msg=lambda message, n=name: f"{n}: {message}")


@pytest.mark.parametrize("variant", [*VARIANTS, *RECURRENT], ids=lambda variant: "-".join(variant.values()))
def test_packed_equals_one_by_one_and_scored_rows_equal_all(variant):
    model = MultiTaskModel(of(variant), VOCABULARY, SPECS[2:], seed=3)
    batch = make_pack(LENGTHS, tasks=SPECS[2:])
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    together = model.encoder(inputs)
    alone = [
        model.encoder(Inputs.from_batch(only_sequences(batch, [i]), "cpu", static=False)) for i in range(len(LENGTHS))
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)
    assert inputs.rows is not None
    rows = model.encoder(inputs, inputs.rows)
    torch.testing.assert_close(rows, together.index_select(0, inputs.rows.index), atol=1e-4, rtol=1e-4)
    with optimizations.disabled("attention_products"):
        torch.testing.assert_close(model.encoder(inputs), together, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: "-".join(variant.values()))
def test_padded_batches_give_what_packs_give(variant):
    encoder = build_encoder(of(variant), 128, seed=2).eval()
    batch = make_pack([9, 4])
    batch = dataclasses.replace(batch, task_ids=batch.task_ids * 0 + 5)
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    ids, types = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, dtype=torch.int64)
    for row, (begin, end) in enumerate([(0, 9), (9, 13)]):
        ids[row, : end - begin], types[row, : end - begin] = inputs.tokens[begin:end], inputs.segments[begin:end]
    mask = (torch.arange(9) < torch.tensor([[9], [4]])).long()
    made = PaddedEncoder(encoder, task_id=5)(ids, mask, types)
    torch.testing.assert_close(made[mask.bool()], encoder(inputs), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", [VARIANTS[7], VARIANTS[11], RECURRENT[1]])
def test_a_variant_is_saved_in_our_folder_and_loaded_bit_for_bit(variant, tmp_path):
    settings = of(variant)
    model = MultiTaskModel(settings, VOCABULARY, SPECS, seed=3)
    save_native(tmp_path, ModelDescription(settings, VOCABULARY, SPECS, {}, 0), model_tensors(model))
    loaded = load_model(tmp_path)
    assert loaded.model.settings == settings
    assert loaded.report.new == loaded.report.left_out == ()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name


def test_unsupported_encoders_are_refused_for_hugging_face_in_one_error():
    settings = of({"norm": "pre", "feed_forward": "gated", "positions": "rotary"})
    assert unsupported_by_hf(EncoderSettings()) == []
    assert unsupported_by_hf(EncoderSettings(kind="gru")) == ["kind=gru"]
    with pytest.raises(
        CheckpointError,
        match=r"not support norm=pre, feed_forward=gated, positions=rotary\. Convert .* with --to ernie2",
    ):
        hf_config(settings, VOCABULARY, {})


def test_defaults_are_not_written_so_that_files_are_as_they_were():
    assert not {"norm", "feed_forward", "positions"} & EncoderSettings().model_dump().keys()
    written = of({"norm": "pre", "positions": "none"}).model_dump(mode="json")
    assert (written["norm"], written["positions"]) == ("pre", "none")
    assert EncoderSettings.model_validate(written) == of({"norm": "pre", "positions": "none"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "lstm", "feed_forward": "gated"}, "feed_forward=gated are for kind=transformer"),
        ({"kind": "gru", "positions": "rotary"}, "rotary positions and feed_forward=gated are for kind=transformer"),
        ({"hidden": 24, "heads": 8, "positions": "rotary"}, "need heads of even width: .* give 3"),
    ],
)
def test_invalid_combinations_are_refused_before_building(values, message):
    with pytest.raises(ValueError, match=message):
        EncoderSettings(**values)


def test_a_gated_layer_reports_its_third_matrix_and_what_it_keeps():
    plain_one, gated = (of({"feed_forward": kind, "ffn": 16}) for kind in ("plain", "gated"))
    assert encoder_flops(gated, [3, 5]) - encoder_flops(plain_one, [3, 5]) == 2 * 6 * 8 * 24 * 16
    assert gated.parameters - plain_one.parameters == 2 * 24 * 16
    kept = [estimate(each, 0, 1, "fp32", activation_checkpointing=False).activations for each in (plain_one, gated)]
    assert kept[1] - kept[0] == 2 * 4 * 2 * 16  # layers, float32, two more of the width 16
