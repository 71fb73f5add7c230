"""A run as a source of parameters: its contents and its tokeniser."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import ernie2
import paddle_files
import tiny
import tiny_run
from ernie2.config.settings import EncoderSettings
from ernie2.errors import CheckpointError, ShardError
from ernie2.model.formats.loading import load_model
from ernie2.model.heads import HeadSpec
from ernie2.model.multitask import MultiTaskModel
from ernie2.runs.sources import (
    changed_labels,
    copy_by_label,
    ernie2_config_keys,
    find_tokenizer_file,
    open_run_or_checkpoint,
)
from ernie2.training.checkpoints import newest
from ernie2.training.run_record import RunRecord, read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    tiny_run.write_shards(folder / "shards")
    return ernie2.pretrain(tiny_run.recipe(folder).model_dump(mode="json"))


def test_a_run_holds_the_parameters_of_its_newest_checkpoint_and_the_heads_of_its_tasks(run):
    stored = open_run_or_checkpoint(run)
    assert stored.layout == "run of ernie2"
    assert [spec.name for spec in stored.specs] == list(tiny.FOUR)
    assert stored.specs[0] == HeadSpec("knowledge_masking", "token", None)
    assert stored.specs[3].classes == 33
    assert stored.vocab_size == 1000
    read = load_model(stored)
    assert read.report.new == read.report.left_out == ()
    for name, tensor in newest(run).parameters().items():
        assert torch.equal(tensor, read.model.state_dict()[name]), name


def test_a_run_that_is_given_to_what_reads_models_says_how_runs_are_opened(run):
    with pytest.raises(
        CheckpointError, match=r"is a run folder.* load .*/hf, or what .*sources\.open_run_or_checkpoint\(Path\('"
    ) as refused:
        load_model(run)
    assert "not a checkpoint" not in str(refused.value)
    for inside in (run / "checkpoints", newest(run).folder):
        with pytest.raises(
            CheckpointError, match=f"{inside} is in a run folder.*name the run itself.* load {run / 'hf'}"
        ):
            open_run_or_checkpoint(inside)
    assert load_model(run / "hf").model.specs.keys() == load_model(open_run_or_checkpoint(run)).model.specs.keys()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run that differs in its seed only."""
    folder = tmp_path_factory.mktemp("other")
    tiny_run.write_shards(folder / "shards")
    return ernie2.pretrain(tiny_run.recipe(folder, seed=1).model_dump(mode="json"))


def test_a_checkpoint_of_another_run_is_passed_over_and_reported(run, other, tmp_path, capsys):
    own, copied = newest(run), shutil.copytree(run, tmp_path / "run")
    last = newest(other).folder.name
    shutil.rmtree(copied / "checkpoints" / last)
    shutil.copytree(other / "checkpoints" / last, copied / "checkpoints" / last)
    assert newest(copied).folder.name < own.folder.name
    assert f"Skipping a checkpoint: {copied}/checkpoints/{last} is of another run" in capsys.readouterr().err
    for folder in (copied / "checkpoints").iterdir():
        if folder.name != last:
            shutil.rmtree(folder)
    for use in (ernie2.evaluate, open_run_or_checkpoint):
        with pytest.raises(CheckpointError, match=rf"no complete checkpoint .*{last} is of another run than run\.json"):
            use(copied)


def test_the_run_json_of_another_run_fits_no_checkpoint(run, other, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    shutil.copy(other / "run.json", copied / "run.json")
    for use in (ernie2.evaluate, open_run_or_checkpoint):
        with pytest.raises(CheckpointError, match=r"is of another run than run\.json"):
            use(copied)


def test_a_run_that_was_moved_or_resumed_keeps_its_checkpoints(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "moved")
    shutil.rmtree(copied / "hf")
    before = read_run(copied).run_id
    ernie2.resume(copied)  # writes run.json and hf again
    assert read_run(copied).run_id == newest(copied).state["run_id"] == before


def test_the_keys_of_ours_are_those_the_run_left_in_its_hugging_face_folder(run):
    config = json.loads((run / "hf/config.json").read_text())
    stored = open_run_or_checkpoint(run)
    assert stored.metadata == {key: config[key] for key in stored.metadata}
    assert set(stored.metadata) == {"ernie2_task_ids", "ernie2_task_instances", "ernie2_task_options"}
    assert sum(stored.metadata["ernie2_task_instances"].values()) > 0


def test_instances_of_a_task_that_was_never_trained_are_none():
    tasks = [
        {"name": name, "id": row, "level": "token", "labels": None, "title": "", "about": ""}
        for row, name in enumerate("ab")
    ]
    values = tiny_run.run_values(tasks=tasks, recipe={"tasks": {"a": {}, "b": {}}})
    assert ernie2_config_keys(RunRecord.model_validate(values), {"b": 7})["ernie2_task_instances"] == {"a": 0, "b": 7}


def test_the_tokeniser_of_a_run_is_that_of_its_folder_or_of_its_shards(run, tmp_path):
    assert find_tokenizer_file(run) == run / "hf/tokenizer.json"
    bare = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(bare / "hf")
    assert find_tokenizer_file(bare) == (run.parent / "shards/tokenizer.json").resolve()


def test_a_run_whose_shards_were_replaced_takes_no_other_tokeniser_for_its_own(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    run = ernie2.pretrain(tiny_run.recipe(tmp_path).model_dump(mode="json"))
    (run / "hf").rename(tmp_path / "hf")
    file = tmp_path / "shards" / "tokenizer.json"
    file.write_text(file.read_text().replace('"w5"', '"w0"'))
    with pytest.raises(ShardError, match=r"tokenizer\.json is not the tokeniser .*run was trained with"):
        ernie2.convert(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tokeniser_of_a_model_lies_in_its_folder(tmp_path):
    folder = paddle_files.copied("fluid", tmp_path)
    assert find_tokenizer_file(folder) is None
    (folder / "vocab.txt").write_text("[PAD]\n")
    for source in (folder, folder / "params", folder / "ernie_config.json"):
        assert find_tokenizer_file(source) == folder / "vocab.txt"


def test_a_run_whose_checkpoints_are_damaged_is_refused(run, tmp_path):
    spoilt = shutil.copytree(run, tmp_path / "run")
    for file in spoilt.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        open_run_or_checkpoint(spoilt)


SETTINGS = EncoderSettings(layers=1, hidden=8, heads=1, position_rows=16)
WEIGHT, BIAS = "heads.discourse_relation.linear.weight", "heads.discourse_relation.linear.bias"


def model(classes):
    return MultiTaskModel(SETTINGS, 40, [HeadSpec("discourse_relation", "sentence", classes)], seed=3)


def test_only_tasks_with_other_classes_or_another_order_are_moved():
    theirs = {"a": ["x", "y"], "b": ["x", "y"], "c": None, "d": ["x", "y"]}
    ours = {"a": ("x", "y"), "b": ("y", "x"), "c": ("x", "y"), "e": ("x", "y")}
    assert changed_labels(theirs, ours) == {"b": (("x", "y"), ("y", "x"))}


def test_rows_follow_their_labels_and_new_labels_start_as_in_a_new_model():
    theirs = {WEIGHT: torch.arange(24.0).reshape(3, 8), BIAS: torch.tensor([1.0, 2.0, 3.0])}
    made, fresh = model(4), model(4).state_dict()
    others = {"discourse_relation": (("and", "but", "so"), ("so", "then", "and", "if"))}
    left_out, new = copy_by_label(theirs, made, others)
    weight, bias = made.state_dict()[WEIGHT], made.state_dict()[BIAS]
    assert torch.equal(weight[[0, 2]], theirs[WEIGHT][[2, 0]])
    assert torch.equal(weight[[1, 3]], fresh[WEIGHT][[1, 3]])
    assert bias.tolist() == [3.0, 0.0, 1.0, 0.0]
    assert new == ("heads.discourse_relation, labels 'then', 'if'",)
    assert left_out == ("heads.discourse_relation, labels 'but'",)


def test_of_many_labels_the_first_ten_are_named():
    theirs = {WEIGHT: torch.zeros(2, 8), BIAS: torch.zeros(2)}
    wanted = tuple(f"l{i}" for i in range(174))
    _, new = copy_by_label(theirs, model(174), {"discourse_relation": (("a", "b"), wanted)})
    assert new[0].endswith("'l9' and 164 others")
