"""Random small ERNIE and BERT models compute what `transformers` computes of them, in both directions."""

from __future__ import annotations

import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from safetensors.torch import load_file

import minilm
from ernie2.batches.batch import pack_sequences
from ernie2.config.settings import EncoderSettings
from ernie2.model.formats.loading import load_model
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import hf_config, save_hf
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.convert import convert

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import (
        AutoModel,
        BertConfig,
        BertForMaskedLM,
        BertModel,
        ErnieConfig,
        ErnieForMaskedLM,
        ErnieModel,
    )

MASKED = HeadSpec("knowledge_masking", "token", None)
slow = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def configurations(draw):
    """Keys of a Hugging Face configuration; `kind` 'ernie' or 'bert'."""
    heads, width = draw(st.integers(1, 4)), draw(st.integers(1, 4)) * 4
    kind = draw(st.sampled_from(["ernie", "bert"]))
    config = {
        "vocab_size": draw(st.sampled_from([61, 64, 70])),
        "hidden_size": heads * width * 2,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(8, 60)),
        "hidden_act": draw(st.sampled_from(["gelu", "relu"])),
        "max_position_embeddings": draw(st.integers(16, 40)),
        "type_vocab_size": draw(st.integers(1, 5)),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-7, 1e-12])),
        "initializer_range": 0.2,
    }
    if kind == "ernie":
        config |= {"use_task_id": draw(st.booleans()), "task_type_vocab_size": draw(st.integers(1, 6))}
    return kind, config


def sequences(config, seed):
    """Ids, segments and task ids of a few sequences, as a pack and as padded rows."""
    rng = np.random.default_rng(seed)
    longest = min(16, config["max_position_embeddings"])
    lengths = [int(n) for n in rng.integers(1, longest + 1, 4)]
    tokens = [rng.integers(0, config["vocab_size"], n) for n in lengths]
    segments = [rng.integers(0, config["type_vocab_size"], n) for n in lengths]
    rows = config["task_type_vocab_size"] if config.get("use_task_id") else 1
    task_ids = [int(i) for i in rng.integers(0, rows, len(lengths))]
    batch = pack_sequences(tokens, segments, task_ids, {}, size=sum(lengths), longest=max(lengths), pad=0)

    def padded(values):
        return torch.tensor([[*row, *[0] * (max(lengths) - len(row))] for row in values])

    arguments = {"input_ids": padded(tokens), "token_type_ids": padded(segments)}
    arguments["attention_mask"] = padded([np.ones(n, int) for n in lengths])
    if config.get("use_task_id"):
        arguments["task_type_ids"] = padded([np.full(n, i) for n, i in zip(lengths, task_ids, strict=True)])
    return Inputs.from_batch(batch, "cpu", static=False), arguments


def roughened(model, seed):
    """Norms and biases too are moved off their initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@torch.no_grad()
def assert_parity(ours, bare, masked, config, seed):
    """Hidden states, pooled output and logits of the same sequences, within 1e-5; in fp64, since weights as large as
    these make sharp attention, which turns the rounding of fp32 scores into more than that."""
    for model in (ours, bare, masked):
        if model is not None:
            model.double()
    inputs, arguments = sequences(config, seed)
    real = arguments["attention_mask"].bool()
    hidden = ours.eval().encoder(inputs)
    theirs = bare(**arguments)
    torch.testing.assert_close(hidden, theirs.last_hidden_state[real], atol=1e-5, rtol=1e-5)
    if theirs.pooler_output is not None:
        pooled = ours.encoder.pool(hidden, inputs.starts[:-1].long())
        torch.testing.assert_close(pooled, theirs.pooler_output, atol=1e-5, rtol=1e-5)
    if masked is not None:
        logits = ours.heads["knowledge_masking"](hidden, ours.encoder.embeddings.token.weight)[:, : ours.vocab_size]
        torch.testing.assert_close(logits, masked(**arguments).logits[real].float(), atol=1e-5, rtol=1e-5)


@slow
@given(drawn=configurations(), seed=st.integers(0, 1000))
def test_what_transformers_wrote_computes_the_same_here(tmp_path_factory, drawn, seed):
    (kind, config), folder = drawn, tmp_path_factory.mktemp("theirs")
    bare_class, masked_class, config_class = {
        "ernie": (ErnieModel, ErnieForMaskedLM, ErnieConfig),
        "bert": (BertModel, BertForMaskedLM, BertConfig),
    }[kind]
    torch.manual_seed(seed)
    masked = roughened(masked_class(config_class(**config)), seed)
    masked.save_pretrained(folder / "masked")
    bare = roughened(bare_class(config_class(**config)), seed + 1)
    bare.save_pretrained(folder / "bare")
    assert_parity(load_model(folder / "bare").model, bare, None, config, seed)
    read = load_model(folder / "masked")
    assert read.report.new == ("encoder.pooler.bias", "encoder.pooler.weight")
    bare_of_masked = bare_class.from_pretrained(folder / "masked").eval()
    bare_of_masked.pooler = None
    assert_parity(read.model, bare_of_masked, masked, config, seed)


@slow
@given(drawn=configurations(), seed=st.integers(0, 1000))
def test_what_we_wrote_computes_the_same_there_and_comes_back_bit_for_bit(tmp_path_factory, drawn, seed):
    (_, config), folder = drawn, tmp_path_factory.mktemp("ours")
    rows = config["task_type_vocab_size"] if config.get("use_task_id") else 0
    chosen = EncoderSettings(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        ffn=config["intermediate_size"],
        activation=config["hidden_act"],
        position_rows=config["max_position_embeddings"],
        segment_types=config["type_vocab_size"],
        task_ids=rows,
        norm_eps=config["layer_norm_eps"],
        init_std=0.2,
    )
    model = MultiTaskModel(chosen, config["vocab_size"], [MASKED], seed)
    save_hf(folder / "hf", model, hf_config(chosen, config["vocab_size"], {}, [MASKED]))
    bare, masked = ErnieModel.from_pretrained(folder / "hf"), ErnieForMaskedLM.from_pretrained(folder / "hf")
    assert_parity(model, bare.eval(), masked.eval(), config, seed)
    convert(folder / "hf", folder / "ernie2", to="ernie2")
    convert(folder / "ernie2", folder / "again")
    before, after = (load_file(folder / name / "model.safetensors") for name in ("hf", "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.skipif(minilm.folder() is None, reason=minilm.MISSING)
def test_the_real_minilm_checkpoint_computes_what_transformers_computes(tmp_path):
    folder = minilm.folder()
    read = load_model(folder)
    assert read.report.left_out == ("embeddings.position_ids",)
    assert read.report.new == read.report.notes == ()
    bare = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    config = bare.config.to_dict()
    for seed in range(3):
        assert_parity(read.model, bare, None, config, seed)
    convert(folder, tmp_path / "hf")
    assert_parity(read.model, ErnieModel.from_pretrained(tmp_path / "hf").eval(), None, config, 3)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "hf/model.safetensors")
    assert {f"ernie.{name}" for name in before} - {"ernie.embeddings.position_ids"} == after.keys()
    assert all(torch.equal(before[name.removeprefix("ernie.")], tensor) for name, tensor in after.items())
