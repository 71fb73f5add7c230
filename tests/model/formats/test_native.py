"""The native format: a round trip changes no bit."""

from __future__ import annotations

import errno
import json

import pytest
import torch

from ernie2.errors import CheckpointError, StorageError
from ernie2.model.formats import native
from ernie2.model.formats.loading import load_model
from ernie2.model.formats.native import ModelDescription, save_native
from ernie2.model.heads import HeadSpec
from ernie2.model.hf import hf_config, save_hf
from ernie2.model.multitask import MultiTaskModel, model_tensors
from model_packs import SPECS, VOCABULARY, small_settings

IDS = {"knowledge_masking": 0, "sentence_reordering": 4}
METADATA = {"ernie2_task_ids": IDS, "ernie2_task_instances": {"knowledge_masking": 9}}


def written(folder, **changes):
    settings = small_settings(**changes)
    model = MultiTaskModel(settings, VOCABULARY, [*SPECS, HeadSpec("news", "sentence", 5)], seed=3)
    save_native(
        folder, ModelDescription(settings, VOCABULARY, tuple(model.specs.values()), METADATA, 7), model_tensors(model)
    )
    return model


@pytest.mark.parametrize("changes", [{}, {"kind": "lstm", "ffn": None}, {"task_ids": 0, "activation": "relu"}])
def test_a_native_folder_is_loaded_bit_for_bit(tmp_path, changes):
    model = written(tmp_path / "own", **changes)
    back = load_model(tmp_path / "own")
    assert back.report.new == back.report.left_out == ()
    assert back.model.settings == model.settings
    assert back.model.specs == model.specs
    assert (back.stored.task_ids, back.stored.metadata, back.stored.pad_id) == (IDS, METADATA, 7)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name]), name


def test_ours_to_hugging_face_to_ours_changes_no_bit(tmp_path):
    model = MultiTaskModel(small_settings(), VOCABULARY, SPECS, seed=3)
    save_hf(tmp_path / "hf", model, hf_config(model.settings, VOCABULARY, IDS, SPECS))
    back = load_model(tmp_path / "hf").model
    assert model_tensors(back).keys() == model_tensors(model).keys()
    assert all(torch.equal(tensor, model_tensors(back)[name]) for name, tensor in model_tensors(model).items())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: {**content, "format": 2}, "has format 2"),
        (lambda content: {**content, "encoder": {"layers": -1}}, "is damaged"),
        (lambda content: {key: value for key, value in content.items() if key != "heads"}, "is damaged"),
        (lambda content: [content], "is damaged"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path, spoil, message):
    written(tmp_path)
    content = json.loads((tmp_path / "ernie2.json").read_text())
    (tmp_path / "ernie2.json").write_text(json.dumps(spoil(content)))
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path)


def test_damaged_or_lacking_parameters_are_refused(tmp_path):
    written(tmp_path)
    path = tmp_path / "ernie2.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"ernie2\.safetensors cannot be read"):
        load_model(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"ernie2\.safetensors cannot be read"):
        load_model(tmp_path)


def test_a_layer_that_is_lacking_is_refused_by_name_and_a_pooler_is_new(tmp_path):
    model = written(tmp_path)
    described, tensors = native.read_native(tmp_path)
    poolerless = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
    save_native(tmp_path, described, poolerless)
    assert load_model(tmp_path).report.new == ("encoder.pooler.bias", "encoder.pooler.weight")
    lost = next(name for name in model.state_dict() if name.startswith("encoder.layers.1."))
    save_native(tmp_path, described, {name: tensor for name, tensor in tensors.items() if name != lost})
    with pytest.raises(CheckpointError, match=f"lacks {lost}"):
        load_model(tmp_path)


def test_a_full_disk_leaves_no_partial_files(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        written(tmp_path)
    assert list(tmp_path.iterdir()) == []
