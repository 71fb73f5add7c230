import json
import shutil

import pytest
import torch

import tiny
import tiny_run
from ernie2.annotate.shards import Shards
from ernie2.annotate.wordpieces import load_wordpieces
from ernie2.errors import CheckpointError, ShardError
from ernie2.exporting import export_hf
from ernie2.model.heads import HeadSpec
from ernie2.train.loading import load, warm_start
from ernie2.train.pretraining import build, head_specs
from ernie2.train.records import Records


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished tiny run with its Hugging Face folder: (run folder, shards, trainer)."""
    folder = tmp_path_factory.mktemp("loading")
    shards = tiny_run.write_shards(folder / "shards")
    made = build(tiny_run.recipe(folder), shards)
    made.trainer.train()
    run = folder / "run"
    Records(run).describe({**made.facts, "status": "done"})
    pieces = load_wordpieces(shards.folder / "tokenizer.json")
    export_hf(run / "hf", made.trainer.model, pieces, made.facts, {}, {})
    return run, shards, made.trainer


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_run_and_its_hugging_face_folder_give_the_same_model_tasks_and_ids(trained, which):
    run, shards, trainer = trained
    loaded = load(run if which == "run" else run / "hf", shards)
    for name, parameter in trainer.model.state_dict().items():
        assert torch.equal(parameter, loaded.model.state_dict()[name]), name
    assert [task.name for task in loaded.tasks] == list(tiny.FOUR)
    assert loaded.ids == {name: row for row, name in enumerate(tiny.FOUR)}
    assert (loaded.recipe is not None) == (which == "run")


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_warm_start_takes_what_is_there_and_names_the_rest(trained, which):
    run, shards, trainer = trained
    source = run if which == "run" else run / "hf"
    specs = [*head_specs(load(run, shards).tasks)[:3], HeadSpec("news", "sentence", 5)]
    started = warm_start(source, trainer.model.settings, specs, seed=5, shards=shards)
    assert set(started.account.new) == {"heads.news.linear.weight", "heads.news.linear.bias"}
    assert {"heads.sentence_reordering.linear.weight", "heads.sentence_reordering.linear.bias"} <= set(
        started.account.left_out
    )
    ours = started.model.state_dict()
    for name, parameter in trainer.model.state_dict().items():
        if not name.startswith(("heads.sentence_reordering", "encoder.embeddings.task")):  # rows: the last test
            assert torch.equal(parameter, ours[name]), name


def test_a_warm_start_begins_a_new_schedule_with_the_old_parameters(trained, tmp_path):
    run, shards, trainer = trained
    specs = head_specs(load(run, shards).tasks)
    model = warm_start(run, trainer.model.settings, specs, seed=0, shards=shards).model
    made = build(tiny_run.recipe(tmp_path), shards, model)
    assert made.trainer._position.step == 0
    assert all((state["exp_avg"] == 0).all() for state in made.trainer.optimizer.state.values())


def test_shards_of_another_tokeniser_are_refused(trained, tmp_path):
    run, shards, _ = trained
    other = tmp_path / "shards"
    shutil.copytree(shards.folder, other)
    for described in [other / "shards.json", *other.glob("text/*/shard.json")]:
        facts = json.loads(described.read_text())
        described.write_text(json.dumps({**facts, "tokenizer": "f" * 64}))
    with pytest.raises(ShardError, match="another tokeniser"):
        load(run, Shards(other))


def test_an_encoder_of_another_shape_is_refused_with_the_way_out(trained):
    run, shards, trainer = trained
    narrow = trainer.model.settings.model_copy(update={"hidden": 8})
    with pytest.raises(CheckpointError, match=r"encoder\.hidden=8, there 16; .*Set these as the checkpoint has them"):
        warm_start(run, narrow, [], seed=0, shards=shards)


@pytest.mark.parametrize(("name", "told"), [("nowhere", "does not exist"), ("empty", "holds neither")])
def test_a_folder_that_is_no_checkpoint_is_refused(trained, tmp_path, name, told):
    _, shards, _ = trained
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=told):
        load(tmp_path / name, shards)


@pytest.mark.parametrize("which", ["run", "hf"])
def test_a_warm_start_takes_the_row_of_a_task_by_its_name_and_copies_row_0_for_a_new_one(trained, which):
    run, shards, trainer = trained
    specs = [HeadSpec("news", "sentence", 5), *reversed(head_specs(load(run, shards).tasks))]
    source = run if which == "run" else run / "hf"
    started = warm_start(source, trainer.model.settings, specs, seed=0, shards=shards)
    theirs = trainer.model.state_dict()["encoder.embeddings.task.weight"]
    ours = started.model.state_dict()["encoder.embeddings.task.weight"]
    # ours: masking 0, news 1, reordering 2, relation 3, capitalization 4; theirs: masking 0 … reordering 3
    assert torch.equal(ours[:5], theirs[[0, 0, 3, 2, 1]])
    assert torch.equal(ours[5:], theirs[5:])
