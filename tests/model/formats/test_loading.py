"""Every tensor is used, left out or new, by name; tables grow on request."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import paddle_files
from ernie2.errors import CheckpointError
from ernie2.finetuning.heads import EncoderWithHead
from ernie2.model.formats import loading
from ernie2.model.formats.loading import LoadReport, fold_layers, load_model
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import hf_config, save_hf
from ernie2.model.multitask import MultiTaskModel, model_tensors
from model_packs import SPECS, VOCABULARY, small_settings

MASKED = HeadSpec("knowledge_masking", "token", None)


@pytest.fixture
def folder(tmp_path):
    """A Hugging Face folder with 2 segment types, 64 positions, 3 task rows and 70 tokens."""
    settings = small_settings(segment_types=2, task_ids=3)
    model = MultiTaskModel(settings, VOCABULARY, SPECS, seed=3)
    save_hf(tmp_path / "hf", model, hf_config(settings, VOCABULARY, {}, SPECS))
    return tmp_path / "hf"


def change(folder, **tensors):
    """Replaces tensors of the folder; None takes one away. In names, __ stands for a dot."""
    stored = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        stored.pop(name.replace("__", "."), None)
        if tensor is not None:
            stored[name.replace("__", ".")] = tensor
    save_file(stored, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("table", "their_table", "setting", "rows", "name"),
    [
        ("segment", "token_type", "segment_types", 4, "encoder.embeddings.segment.weight[2:]"),
        ("position", "position", "position_rows", 80, "encoder.embeddings.position.weight[64:]"),
    ],
)
def test_a_table_grows_only_where_it_is_named(folder, table, their_table, setting, rows, name):
    wanted = small_settings(segment_types=2, task_ids=3).model_copy(update={setting: rows})
    with pytest.raises(CheckpointError, match=rf"encoder\.{setting}={rows}, there .* by growing {setting}"):
        load_model(folder, settings=wanted)
    grown = load_model(folder, settings=wanted, grow=[setting], seed=5)
    assert grown.report.new == (name,)
    theirs = load_file(folder / "model.safetensors")[f"ernie.embeddings.{their_table}_embeddings.weight"]
    ours = getattr(grown.model.encoder.embeddings, table).weight
    assert torch.equal(ours[: len(theirs)], theirs)
    fresh = getattr(MultiTaskModel(wanted, VOCABULARY, [], seed=5).encoder.embeddings, table).weight
    assert torch.equal(ours[len(theirs) :], fresh[len(theirs) :])


def test_a_vocabulary_grows_only_where_it_is_named_and_its_new_tokens_can_be_predicted(folder):
    with pytest.raises(CheckpointError, match=r"75 tokens, there 70.* by growing vocabulary"):
        load_model(folder, vocab_size=75)
    grown = load_model(folder, vocab_size=75, grow=["vocabulary"])
    assert grown.report.new == ("encoder.embeddings.token.weight[70:]", "heads.knowledge_masking.bias[70:]")
    bias = grown.model.heads["knowledge_masking"].bias
    assert not bias[70:75].any()
    assert (bias[75:] < -1_000).all()
    assert grown.model.encoder.embeddings.token.weight[70:75].any()


def test_rows_beyond_a_smaller_vocabulary_are_cut_off_and_named(folder):
    cut = load_model(folder, vocab_size=66)
    assert cut.report.left_out == ("cls.predictions.bias[66:]", "ernie.embeddings.word_embeddings.weight[66:]")
    assert cut.report.new == ()
    whole = load_model(folder).model
    for name, tensor in model_tensors(cut.model).items():
        assert torch.equal(tensor, model_tensors(whole)[name][: len(tensor)]), name
    assert not cut.model.encoder.embeddings.token.weight[66:].any()


def test_a_table_of_task_ids_never_shrinks(folder):
    with pytest.raises(CheckpointError, match=r"encoder\.task_ids=2, there 3"):
        load_model(folder, settings=small_settings(segment_types=2, task_ids=2))


def test_other_settings_cannot_grow(folder):
    with pytest.raises(CheckpointError, match="'layers' cannot grow; choose from segment_types"):
        load_model(folder, grow=["layers"])


def test_the_error_for_an_unfixable_difference_does_not_suggest_growing(folder):
    wanted = small_settings(segment_types=4, task_ids=3, layers=3)
    with pytest.raises(
        CheckpointError, match=r"layers=3, there 2; encoder\.segment_types=4, there 2\. Set these"
    ) as told:
        load_model(folder, settings=wanted)
    assert "growing" not in str(told.value)


def test_extra_tensors_are_left_out_by_name(folder):
    change(folder, classifier__weight=torch.ones(2, 24), ernie__encoder__layer__2__output__dense__bias=torch.ones(24))
    left = load_model(folder).report.left_out
    assert left == ("classifier.weight", "ernie.encoder.layer.2.output.dense.bias")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("ernie__encoder__layer__1__output__dense__weight", None, r"lacks encoder\.layer\.1\.output\.dense\.weight"),
        (
            "ernie__encoder__layer__1__output__dense__weight",
            torch.ones(24, 7),
            r"has shape \(24, 7\); .* need \(24, 96\)",
        ),
        ("ernie__encoder__layer__0__attention__self__key__bias", torch.ones(5), r"have shapes \[\(5,\), \(24,\)\]"),
        ("ernie__encoder__layer__0__attention__self__key__bias", torch.tensor(1.0), "and cannot be concatenated"),
        ("ernie__embeddings__position_embeddings__weight", torch.ones(60, 24), r"\(60, 24\); .* need \(64, 24\)"),
        ("cls__predictions__bias", torch.ones(69), r"cls.predictions.bias has shape \(69,\); .* need \(70,\)"),
        ("ernie__embeddings__word_embeddings__weight", torch.ones(70), "word embeddings are not a matrix"),
    ],
)
def test_a_missing_tensor_or_a_wrong_shape_is_refused_by_name(folder, name, tensor, message):
    change(folder, **{name: tensor})
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_an_output_matrix_that_differs_from_the_word_table_is_left_out_and_noted(folder):
    change(folder, cls__predictions__decoder__weight=torch.ones(70, 24))
    report = load_model(folder).report
    assert report.left_out == ("cls.predictions.decoder.weight",)
    assert "differs from ernie.embeddings.word_embeddings.weight, to which it is tied" in report.notes[0]


def test_a_word_table_with_more_rows_than_configured_is_used_and_noted(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 66}))
    read = load_model(folder)
    assert read.model.vocab_size == 70
    assert read.report.notes == (
        "vocab_size is 66 in the configuration; the token embedding has 70 rows, which is used",
    )


def test_a_missing_model_type_is_inferred_from_tensor_names(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"], config["intermediate_size"], config["type_vocab_size"], config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    read = load_model(folder)
    assert "no model_type; assuming 'ernie'" in read.report.notes[0]
    assert (read.model.settings.layers, read.model.settings.ffn_width, read.model.settings.segment_types) == (2, 96, 2)


@pytest.mark.parametrize("name", ["paddlenlp-plain", "fluid"])
def test_a_classifier_can_be_built_from_a_paddle_model(name):
    read = load_model(paddle_files.FOLDER / name)
    stored = {key: tensor.clone() for key, tensor in read.model.encoder.state_dict().items()}
    classifier = EncoderWithHead(read.model.encoder, "classification", outputs=3, seed=0)
    assert tuple(classifier.linear.weight.shape) == (3, read.model.settings.hidden)
    kept = classifier.encoder.state_dict()
    assert all(torch.equal(tensor, kept[key]) for key, tensor in stored.items())


def test_an_account_is_printed_with_layers_folded():
    names = [f"encoder.layer.{i}.output.dense.bias" for i in range(12)] + ["pooler.dense.bias"]
    assert fold_layers(names) == ["encoder.layer.{0-11}.output.dense.bias", "pooler.dense.bias"]
    assert fold_layers(["encoder_layer_0_ffn_fc_0.w_0", "encoder_layer_2_ffn_fc_0.w_0"]) == [
        "encoder_layer_{0,2}_ffn_fc_0.w_0"
    ]
    assert LoadReport(tuple(names), (), ("a",), ("b",)).lines() == [
        "used (13): encoder.layer.{0-11}.output.dense.bias, pooler.dense.bias",
        "left out: nothing",
        "newly initialised (1): a",
        "note: b",
    ]


def configured(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_decoder_bias_is_used_as_the_bias_of_the_head(folder):
    bias = load_file(folder / "model.safetensors")["cls.predictions.bias"]
    change(folder, cls__predictions__bias=None, cls__predictions__decoder__bias=bias + 1)
    read = load_model(folder)
    assert read.report.left_out == read.report.new == ()
    assert torch.equal(read.model.heads["knowledge_masking"].bias[:VOCABULARY], bias + 1)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "module._orig_mod."])
def test_weights_under_a_wrapper_are_read(folder, wrapper):
    plain = load_model(folder)
    stored = load_file(folder / "model.safetensors")
    save_file({f"{wrapper}{name}": tensor for name, tensor in stored.items()}, folder / "model.safetensors")
    wrapped = load_model(folder)
    assert wrapped.report.left_out == wrapped.report.new == ()
    assert all(torch.equal(model_tensors(wrapped.model)[name], one) for name, one in model_tensors(plain.model).items())


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9}, {"hidden_size": 99_999, "num_attention_heads": 1},
        {"max_position_embeddings": 10**12}, {"max_position_embeddings": 10**6},
        {"type_vocab_size": 10**12}, {"task_type_vocab_size": 10**12}, {"intermediate_size": 10**12},
        {"intermediate_size": 10**6}, {"num_hidden_layers": 10**9},
        {"ernie2_heads": {"sentence_reordering": {"level": "sentence", "classes": 10**12}}},
    ],
)  # fmt: skip
def test_a_configuration_far_larger_than_the_weights_is_refused_before_allocation(folder, changes, monkeypatch):
    monkeypatch.setattr(loading, "MultiTaskModel", lambda *_: pytest.fail("a model was built"))
    configured(folder, **changes)
    with pytest.raises(CheckpointError, match=r"describes a(n invalid encoder| model of)"):
        load_model(folder)


def test_layers_that_share_one_storage_do_not_make_a_file_larger_than_it_is(tmp_path):
    settings = small_settings(hidden=512, heads=1, layers=1, task_ids=0)
    config = hf_config(settings, 8, {}) | {"num_hidden_layers": 500, "intermediate_size": 512}
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = [f"encoder.layer.{i}.attention.self.{part}.weight" for i in range(500) for part in ("query", "key")]
    tensors = dict.fromkeys(names, torch.ones(512, 512)) | {"embeddings.word_embeddings.weight": torch.ones(8, 512)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="describes a model of"):
        load_model(tmp_path)


def test_many_layers_are_refused_as_lacking(folder):
    configured(folder, num_hidden_layers=900)
    with pytest.raises(CheckpointError, match=r"lacks encoder\.layer\.2"):
        load_model(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ["bert"]}, {"ernie2_heads": [1]}, {"ernie2_heads": {"a": {"level": "word", "classes": 2}}},
        {"ernie2_heads": {"a": 3}}, {"ernie2_heads": {"a": {"level": "token", "classes": "x"}}},
        {"ernie2_task_ids": ["a"]}, {"ernie2_task_ids": {"a": -1}}, {"pad_token_id": "x"}, {"hidden_size": "x"},
        {"ernie2_task_instances": 3}, {"use_task_id": True, "task_type_vocab_size": [3]},
    ],
)  # fmt: skip
def test_wrong_types_in_a_configuration_are_refused_in_one_line(folder, changes):
    configured(folder, **changes)
    with pytest.raises(CheckpointError) as told:
        load_model(folder)
    assert "config.json" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_configuration_nested_too_deeply_is_refused(folder):
    (folder / "config.json").write_text('{"a": ' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON: it is nested too deeply"):
        load_model(folder)


def test_heads_that_are_stated_without_weights_are_noted_and_not_built(folder):
    (folder / "task_heads.safetensors").unlink()
    read = load_model(folder)
    assert "declares heads without weights: " in read.report.notes[0]
    assert list(read.model.specs) == ["knowledge_masking"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.fill_(float("nan")), r"1,680 of the 1,680 values of ernie\.\S+ are not finite"),
        (lambda table: table.index_fill_(0, torch.tensor([3]), float("inf")), "24 of the 1,680 values"),
        (lambda table: table.to(torch.int8), r"word_embeddings\.weight has dtype int8: quantised"),
    ],
)  # fmt: skip
def test_weights_that_are_not_finite_floats_are_refused_by_name(folder, spoil, message):
    name = "ernie.embeddings.word_embeddings.weight"
    table = spoil(load_file(folder / "model.safetensors")[name].clone())
    change(folder, **{name.replace(".", "__"): table})
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)
