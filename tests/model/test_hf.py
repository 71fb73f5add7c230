"""Hugging Face folders: the same outputs there and here, no bit lost on the way, everything accounted for by name."""

from __future__ import annotations

import errno
import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ernie2.errors import CheckpointError, StorageError
from ernie2.model.formats.loading import load_model
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import hf_config, save_hf, settings_from_config
from ernie2.model.inputs import Inputs
from ernie2.model.multitask import MultiTaskModel
from model_packs import SPECS, VOCABULARY, make_pack, padded, small_settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForPreTraining,
        ErnieConfig,
        ErnieForMaskedLM,
        ErnieForPreTraining,
        ErnieModel,
    )

MASKED = HeadSpec("knowledge_masking", "token", None)
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def roughened(model):
    """Every parameter moved off its initial value, so that no tensor can be mistaken for another."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.2
            if name.endswith("token.weight") or name == "heads.knowledge_masking.bias":
                noise[VOCABULARY:] = 0.0
            parameter.add_(noise)
    return model


def written(folder, specs=SPECS, **changes):
    settings = small_settings(**changes)
    model = roughened(MultiTaskModel(settings, VOCABULARY, specs, seed=3)).eval()
    task_ids = {"knowledge_masking": 0, "sentence_reordering": 1}
    save_hf(folder, model, hf_config(settings, VOCABULARY, task_ids, specs))
    return model


def hf_arguments(batch, with_task_ids=True):
    arguments = {
        "input_ids": torch.from_numpy(padded(batch.tokens, batch.starts)),
        "token_type_ids": torch.from_numpy(padded(batch.segments, batch.starts)),
        "attention_mask": torch.from_numpy(padded(np.ones_like(batch.tokens), batch.starts)),
    }
    if with_task_ids:
        arguments["task_type_ids"] = torch.from_numpy(padded(batch.task_ids, batch.starts))
    return arguments


def loaded(cls, folder):
    return cls.from_pretrained(folder, output_loading_info=True)


@pytest.mark.parametrize("task_rows", [0, 16])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("lengths", [[7], [1, 1], [5, 64, 3, 3, 12], [9, 9, 9, 9], list(range(1, 40, 3))])
def test_hidden_states_and_logits_equal_those_of_transformers(tmp_path, lengths, activation, task_rows):
    model = written(tmp_path, activation=activation, task_ids=task_rows)
    batch = make_pack(lengths, seed=len(lengths), tail=3)
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    hidden = model.encoder(inputs)
    logits = model.heads["knowledge_masking"](hidden, model.encoder.embeddings.token.weight)[:, :VOCABULARY]
    arguments = hf_arguments(batch, with_task_ids=task_rows > 0)
    real = arguments["attention_mask"].bool()
    bare, _ = loaded(ErnieModel, tmp_path)
    masked, _ = loaded(ErnieForMaskedLM, tmp_path)
    with torch.no_grad():
        theirs = bare(**arguments)
        their_logits = masked(**arguments).logits
    torch.testing.assert_close(hidden, theirs.last_hidden_state[real], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.encoder.pool(hidden, inputs.starts[:-1].long()), theirs.pooler_output, atol=1e-5, rtol=0
    )
    torch.testing.assert_close(logits, their_logits[real], atol=1e-5, rtol=1e-5)


def test_the_masked_loss_equals_that_of_transformers(tmp_path):
    model = written(tmp_path)
    batch = make_pack([12, 30, 5])
    labels = np.full(len(batch.tokens), -100)
    targets = batch.targets["knowledge_masking"]
    labels[targets.positions] = targets.labels
    masked, _ = loaded(ErnieForMaskedLM, tmp_path)
    theirs = masked(**hf_arguments(batch), labels=torch.from_numpy(padded(labels, batch.starts, fill=-100))).loss
    ours = model(Inputs.from_batch(batch, "cpu", static=False))["knowledge_masking"]
    torch.testing.assert_close(ours.sum / ours.count, theirs, atol=1e-5, rtol=1e-5)


def test_transformers_lacks_no_key_and_ignores_only_the_unsupported_part(tmp_path):
    written(tmp_path)
    _, masked = loaded(ErnieForMaskedLM, tmp_path)
    _, bare = loaded(ErnieModel, tmp_path)
    assert not masked["missing_keys"]
    assert not bare["missing_keys"]
    assert set(masked["unexpected_keys"]) == {"ernie.pooler.dense.weight", "ernie.pooler.dense.bias"}
    assert all(name.startswith("cls.predictions.") for name in bare["unexpected_keys"])
    assert len(bare["unexpected_keys"]) == 5


def test_every_head_comes_back_bit_for_bit(tmp_path):
    model = written(tmp_path)
    back = load_model(tmp_path)
    assert back.model.specs == model.specs
    assert back.report.new == back.report.left_out == ()
    assert back.stored.task_ids == {"knowledge_masking": 0, "sentence_reordering": 1}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name]), name


@pytest.mark.parametrize("vocabulary", [64, 70])
def test_a_transformers_folder_goes_through_us_unchanged(tmp_path, vocabulary):
    sizes = SIZES | {"vocab_size": vocabulary, "use_task_id": True, "task_type_vocab_size": 5}
    ErnieForPreTraining(ErnieConfig(**sizes)).save_pretrained(tmp_path / "theirs")
    read = load_model(tmp_path / "theirs")
    assert read.report.new == ()
    assert read.report.left_out == ("cls.seq_relationship.bias", "cls.seq_relationship.weight")
    save_hf(tmp_path / "ours", read.model, hf_config(read.model.settings, vocabulary, {}))
    before = load_file(tmp_path / "theirs/model.safetensors")
    after = load_file(tmp_path / "ours/model.safetensors")
    assert before.keys() - set(read.report.left_out) == after.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_a_bert_folder_with_old_names_and_tied_copies_is_read(tmp_path):
    theirs = BertForPreTraining(BertConfig(**SIZES, layer_norm_eps=1e-7)).eval()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t for name, t in tensors.items()
    }
    save_file(old, path, metadata={"format": "pt"})
    read = load_model(tmp_path)
    assert read.model.settings.norm_eps == 1e-7
    assert read.model.settings.segment_types == 2
    assert read.report.left_out == ("cls.seq_relationship.bias", "cls.seq_relationship.weight")
    assert "cls.predictions.decoder.weight" in read.report.used
    batch = make_pack([4, 11, 2])
    batch.segments[:] = 0
    hidden = read.model.eval().encoder(Inputs.from_batch(batch, "cpu", static=False))
    arguments = hf_arguments(batch, with_task_ids=False)
    with torch.no_grad():
        expected = theirs.bert(**arguments).last_hidden_state[arguments["attention_mask"].bool()]
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


def test_a_missing_task_table_is_zero_named_and_changes_no_output(tmp_path):
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(tmp_path)
    plain = load_model(tmp_path)
    with_table = load_model(tmp_path, settings=plain.model.settings.model_copy(update={"task_ids": 16}))
    pooler = ("encoder.pooler.bias", "encoder.pooler.weight")
    assert plain.report.new == pooler
    assert with_table.report.new == ("encoder.embeddings.task.weight", *pooler)
    assert not with_table.model.encoder.embeddings.task.weight.any()
    batch = make_pack([4, 11, 2])
    batch.segments[:] = 0
    inputs = Inputs.from_batch(batch, "cpu", static=False)
    assert torch.equal(plain.model.eval().encoder(inputs), with_table.model.eval().encoder(inputs))


def test_a_table_the_configuration_does_not_use_is_left_out(tmp_path):
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_task_id": False}))
    read = load_model(tmp_path, settings=small_settings())
    assert read.report.left_out == ("ernie.embeddings.task_type_embeddings.weight",)
    assert read.report.new == ("encoder.embeddings.task.weight",)


def test_more_task_rows_than_the_file_has_copy_row_0_and_are_named(tmp_path):
    model = written(tmp_path, task_ids=3)
    read = load_model(tmp_path, settings=small_settings(task_ids=5))
    assert read.report.new == ("encoder.embeddings.task.weight[3:]",)
    rows = read.model.encoder.embeddings.task.weight
    assert torch.equal(rows[:3], model.encoder.embeddings.task.weight)
    assert torch.equal(rows[3], rows[0])
    assert torch.equal(rows[4], rows[0])


def test_heads_that_are_not_there_start_as_in_a_new_model(tmp_path):
    written(tmp_path, specs=[MASKED])
    spec = HeadSpec("sentence_distance", "sentence", 3)
    read = load_model(tmp_path, specs=[MASKED, spec], seed=8)
    assert read.report.new == ("heads.sentence_distance.linear.bias", "heads.sentence_distance.linear.weight")
    fresh = MultiTaskModel(small_settings(), VOCABULARY, [spec], seed=8).heads["sentence_distance"]
    assert torch.equal(read.model.heads["sentence_distance"].linear.weight, fresh.linear.weight)


@pytest.mark.parametrize(
    ("model_type", "expected"), [("ernie", 1e-5), ("bert", 1e-12)], ids=["ernie 1e-5", "bert 1e-12"]
)
def test_a_silent_norm_eps_is_that_of_the_authors_code(tmp_path, model_type, expected):
    written(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["layer_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    assert load_model(tmp_path).model.settings.norm_eps == expected


def spoil_config(**changes):
    def spoil(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return spoil


def drop_tensor(name):
    def spoil(folder):
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "is not a checkpoint: it has neither"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x10\0\0"), "damaged"),
        (spoil_config(model_type="roberta"), "model_type is 'roberta'"),
        (spoil_config(position_embedding_type="relative_key"), "relative_key"),
        (spoil_config(hidden_act="swish"), "hidden_act"),
        (spoil_config(num_hidden_layers=3), "lacks encoder.layer.2"),
        (spoil_config(max_position_embeddings=32), "position_embeddings.weight has shape"),
        (drop_tensor("ernie.embeddings.word_embeddings.weight"), "no word embeddings"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(tmp_path, spoil, message):
    written(tmp_path)
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_settings_that_do_not_fit_the_folder_are_all_named(tmp_path):
    written(tmp_path)
    with pytest.raises(CheckpointError, match=r"encoder\.heads=4, there 3; encoder\.position_rows=32, there 64"):
        load_model(tmp_path, settings=small_settings(heads=4, position_rows=32))


def test_a_full_disk_leaves_the_old_files_and_no_partial_ones(tmp_path, monkeypatch):
    written(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=9)
    saves = []

    def full(tensors, path, metadata=None):
        saves.append(path)
        path.write_bytes(b"half")
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save_hf(tmp_path, model, {})
    assert len(saves) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_a_decoder_is_refused(key):
    with pytest.raises(CheckpointError, match=f"here: {key} is True; only bidirectional encoders"):
        settings_from_config({"model_type": "ernie", key: True}, "here")
    assert settings_from_config({"model_type": "ernie", key: False}, "here").layers == 12
