"""Weights files: recognised by their first bytes, single or sharded, and refused if damaged or unsafe."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import paddle_files
from ernie2.errors import CheckpointError
from ernie2.model.formats.containers import read_weights

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}


class Runs:
    """Makes a file when it is unpickled the usual way."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def sharded(folder, file="model.safetensors"):
    index = {"weight_map": {}}
    for number, name in enumerate(TENSORS):
        shard = f"{file.split('.')[0]}-0000{number}.{file.split('.')[1]}"
        save = save_file if file.endswith("safetensors") else torch.save
        save({name: TENSORS[name]}, folder / shard)
        index["weight_map"][name] = shard
    (folder / f"{file}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("how", ["safetensors", "bin", "old bin", "shards", "shards of bin"])
def test_tensors_come_back_from_every_kind_of_file(tmp_path, how):
    if how == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors")
    elif how.startswith("shards"):
        sharded(tmp_path, "pytorch_model.bin" if how.endswith("bin") else "model.safetensors")
    else:
        torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=how == "bin")
    read = read_weights(tmp_path)
    assert read.unread == ()
    assert read.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_what_is_no_tensor_is_named(tmp_path):
    torch.save({**TENSORS, "step": 3}, tmp_path / "pytorch_model.bin")
    assert read_weights(tmp_path).unread == ("step",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_would_run_a_command_runs_nothing_and_is_refused_by_name(tmp_path, zipped):
    mark, path = tmp_path / "mark", tmp_path / "pytorch_model.bin"
    torch.save({**TENSORS, "evil": Runs(mark)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=rf"refers to {os.system.__module__}\.system, .*nothing was run"):
        read_weights(tmp_path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file of this test does nothing, so it tests nothing"


def test_a_bare_pickle_in_place_of_a_torch_file_runs_nothing(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch mark'\ntR.")
    with pytest.raises(CheckpointError, match=r"refers to os\.system"):
        read_weights(tmp_path)


def spoil_index(change):
    def spoil(folder):
        sharded(folder)
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


def deep_index(folder):
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ' + "[" * 100_000 + "]" * 100_000 + "}")


def cut(name, length):
    def spoil(folder):
        if name.endswith("bin"):
            torch.save(TENSORS, folder / name)
        else:
            save_file(TENSORS, folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:length])

    return spoil


def two_files(folder):
    for name in ("a.pdparams", "b.pdparams"):
        (folder / name).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: None, "has no weights: none of model.safetensors"),
        (cut("model.safetensors", -3), "damaged or not a safetensors"),
        (cut("model.safetensors", 20), "damaged or not a safetensors"),
        (cut("model.safetensors", 0), "is an empty file: download it again"),
        (cut("pytorch_model.bin", 300), "damaged or not written by torch"),
        (two_files, r"has 2 weights files \(a.pdparams, b.pdparams\). Name one"),
        (lambda folder: torch.save([1, 2], folder / "pytorch_model.bin"), "does not contain a mapping"),
        (spoil_index(lambda _: []), "not an index of shards"),
        (spoil_index(lambda _: {"weight_map": {"a": None}}), "not an index of shards"),
        (spoil_index(lambda _: {"weight_map": {"a": 3}}), "not an index of shards"),
        (deep_index, "cannot be read as JSON: it is nested too deeply"),
        (spoil_index(lambda _: {"weight_map": {"a": "../model.safetensors"}}), "not in the same folder"),
        (spoil_index(lambda _: {"weight_map": {"a": "gone.safetensors"}}), "lacks gone.safetensors"),
        (
            spoil_index(lambda i: {"weight_map": {**i["weight_map"], "c": "model-00000.safetensors"}}),
            "lacks the tensors c, listed",
        ),
    ],
)
def test_damaged_or_missing_files_are_refused_by_name(tmp_path, spoil, message):
    spoil(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path)


def test_a_truncated_variable_and_a_truncated_pickle_are_refused_by_name(tmp_path):
    fluid = paddle_files.copied("fluid", tmp_path)
    path = fluid / "params/pooled_fc.w_0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"pooled_fc.w_0 is damaged: its array of shape \(32, 32\)"):
        read_weights(fluid)
    dygraph = paddle_files.copied("dygraph", tmp_path)
    path = dygraph / "saved_weights.pdparams"
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError, match="damaged or not a pickle"):
        read_weights(dygraph)
