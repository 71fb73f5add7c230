"""Real Paddle files in all layouts, compared with PaddleNLP's outputs."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import paddle_files
from ernie2.errors import CheckpointError
from ernie2.model.formats.containers import Container, read_weights
from ernie2.model.formats.layouts import find_prefix, rename_tensors
from ernie2.model.formats.loading import load_model
from ernie2.model.tensor_names import HF_WORD_TABLE

EPS = {"paddlenlp-task": 1e-12, "paddlenlp-plain": 1e-5, "dygraph": 1e-5, "fluid": 1e-5}


def assert_same(model, name, tolerance=2e-6):
    for kind, (ours, theirs) in paddle_files.outputs(model, name).items():
        assert np.abs(ours - theirs).max() <= tolerance * max(1, np.abs(theirs).max()), kind


@pytest.mark.parametrize("name", paddle_files.LAYOUTS)
def test_a_model_of_paddle_computes_what_paddlenlp_computes(name):
    read = load_model(paddle_files.FOLDER / name)
    assert read.stored.layout == paddle_files.LAYOUTS[name]
    assert read.report.new == read.report.left_out == ()
    assert read.model.settings.norm_eps == EPS[name]
    assert_same(read.model, name)


def test_another_eps_than_the_configuration_says_is_seen(tmp_path):
    folder = paddle_files.copied("paddlenlp-task", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    with pytest.raises(AssertionError, match="hidden"):
        assert_same(load_model(folder).model, "paddlenlp-task")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("paddlenlp-task", "model_state.pdparams"),
        ("dygraph", "saved_weights.pdparams"),
        ("fluid", "params"),
    ],
)
def test_the_weights_themselves_may_be_named(name, part):
    assert_same(load_model(paddle_files.FOLDER / name / part).model, name)


@pytest.mark.parametrize("container", ["safetensors", "torch", "old torch"])
def test_the_layout_follows_from_tensor_names_not_from_the_file_name(tmp_path, container):
    folder = paddle_files.copied("dygraph", tmp_path)
    tensors = read_weights(folder).tensors
    (folder / "saved_weights.pdparams").unlink()
    if container == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "weights.pdparams", _use_new_zipfile_serialization=container == "torch")
    read = load_model(folder)
    assert read.stored.layout == "Paddle dygraph"
    assert_same(read.model, "dygraph")


def test_a_declared_but_missing_task_embedding_is_noted():
    read = load_model(paddle_files.FOLDER / "dygraph")
    assert read.model.settings.task_ids == 0
    assert read.report.notes == (
        "the configuration declares 16 task ids, but there is no task embedding; loaded without",
    )


def test_a_missing_task_embedding_is_zero_listed_and_noted(tmp_path):
    folder = paddle_files.copied("fluid", tmp_path)
    (folder / "params/task_embedding").unlink()
    read = load_model(folder)
    assert read.report.new == ("encoder.embeddings.task.weight",)
    assert "declares a task embedding (5 rows), but there is none" in read.report.notes[0]
    assert not read.model.encoder.embeddings.task.weight.any()


def test_variables_of_an_optimiser_are_named_and_not_read(tmp_path):
    folder = paddle_files.copied("fluid", tmp_path)
    for name in ("word_embedding_moment1_0", "learning_rate_0"):
        (folder / "params" / name).write_bytes(b"no variable at all")
    read = load_model(folder)
    assert read.report.left_out == ("learning_rate_0", "word_embedding_moment1_0")
    assert_same(read.model, "fluid")


def test_the_older_configuration_of_paddlenlp_is_read(tmp_path):
    folder = paddle_files.copied("paddlenlp-plain", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    kept = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "hidden_act",
        "hidden_dropout_prob",
    )
    inner = {key: config[key] for key in kept} | {"init_class": "ErnieModel"}
    (folder / "config.json").unlink()
    written = json.dumps({"init_args": [inner], "init_class": "ErnieForMaskedLM"})
    (folder / "model_config.json").write_text(written)
    read = load_model(folder)  # widths, positions and segment types follow from the tensors, eps is 1e-5 where silent
    assert (read.model.settings.ffn_width, read.model.settings.segment_types) == (64, 2)
    assert_same(read.model, "paddlenlp-plain")


def test_a_name_no_layout_has_is_left_out_by_name_and_a_second_tensor_for_one_place_too(tmp_path):
    tensors = read_weights(paddle_files.FOLDER / "dygraph").tensors
    tensors |= {"classifier.weight": torch.ones(2, 2), "ernie.word_emb.weight": torch.ones(2, 2)}
    renamed = rename_tensors(Container(tmp_path, tensors))
    assert renamed.unknown == ("classifier.weight", "ernie.word_emb.weight")
    assert len(renamed.tensors["embeddings.word_embeddings.weight"].tensor) == 211


def test_a_linear_is_turned_over_and_a_table_is_not(tmp_path):
    tensors = {"word_emb.weight": torch.ones(5, 4), "encoder_stack.block.0.ffn.i.weight": torch.ones(4, 16)}
    renamed = rename_tensors(Container(tmp_path, tensors)).tensors
    assert renamed["embeddings.word_embeddings.weight"].tensor.shape == (5, 4)
    assert renamed["encoder.layer.0.intermediate.dense.weight"].tensor.shape == (16, 4)


def test_tensors_of_another_kind_of_model_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no word embeddings"):
        rename_tensors(Container(tmp_path, {"decoder.weight": torch.ones(2, 2)}))
    with pytest.raises(CheckpointError, match="word embeddings are not a matrix"):
        rename_tensors(Container(tmp_path, {"word_emb.weight": torch.ones(2)}))


@pytest.mark.parametrize("name", ["paddlenlp-task", "dygraph", "fluid"])
def test_a_layer_that_is_lacking_and_a_wrong_shape_are_refused_by_name(tmp_path, name):
    folder = paddle_files.copied(name, tmp_path)
    with suppress(FileNotFoundError):
        (folder / "params/encoder_layer_1_ffn_fc_0.w_0").unlink()
    if name in paddle_files.WEIGHTS:
        path = folder / paddle_files.WEIGHTS[name]
        content = pickle.loads(path.read_bytes())  # noqa: S301
        lost = next(key for key in content if "1.linear1.weight" in key or "1.ffn.i.weight" in key)
        path.write_bytes(pickle.dumps({key: array for key, array in content.items() if key != lost}))
    with pytest.raises(CheckpointError, match=r"lacks encoder\.layer\.1\.intermediate\.dense\.weight"):
        load_model(folder)


@pytest.mark.parametrize(
    ("prefix", "split"),
    [
        ("", ("", "")),
        ("bert.", ("", "bert.")),
        ("ernie.", ("", "ernie.")),
        ("module.bert.", ("module.", "bert.")),
        ("model.", ("model.", "")),
        ("module._orig_mod.model.ernie.", ("module._orig_mod.model.", "ernie.")),
    ],
)
def test_the_prefix_of_all_names_is_that_of_the_word_table(prefix, split):
    assert find_prefix([f"{prefix}{HF_WORD_TABLE}", "cls.predictions.bias", "step"], "x") == split


def test_an_unknown_prefix_is_refused():
    with pytest.raises(CheckpointError, match=r"word embeddings have prefix 'question_encoder.bert.'"):
        find_prefix([f"question_encoder.bert.{HF_WORD_TABLE}"], "x")


def test_two_word_tables_are_refused():
    with pytest.raises(CheckpointError, match=r"several token embeddings, under 'bert.', 'module.bert.'"):
        find_prefix([f"module.bert.{HF_WORD_TABLE}", f"bert.{HF_WORD_TABLE}"], "x")
