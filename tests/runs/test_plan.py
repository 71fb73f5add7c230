"""A dry run reports schedule, epochs, memory and time, has the run's errors, and writes nothing."""

import json
import re
from contextlib import suppress

import pytest
import torch

import ernie2
import tiny_run
from ernie2.errors import CheckpointError, ConfigError, DataError, ShardError
from ernie2.runs.recipes import load_recipe
from ernie2.training.records import Records
from ernie2.training.run_record import read_run


@pytest.fixture
def recipe(tmp_path):
    tiny_run.write_shards(tmp_path / "shards")
    return tiny_run.recipe(tmp_path).model_dump(mode="json")


def test_the_figures_of_a_dry_run_are_those_of_the_run(recipe, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    figures = ernie2.plan(recipe, seconds=0.2)
    assert sorted(tmp_path.rglob("*")) == before
    record = read_run(ernie2.pretrain(recipe))
    assert [stage["steps"] for stage in figures["stages"]] == [stage.steps for stage in record.stages]
    for stage, planned in zip(figures["stages"], record.stages, strict=True):
        assert {task: row["iterations"] for task, row in stage["tasks"].items()} == planned.iterations
        assert sum(row["main"] for row in stage["tasks"].values()) == stage["steps"]
    assert figures["parameters"] == record.parameters
    last = [line for line in Records(tmp_path / "run").read() if line["kind"] == "step"][-1]
    assert figures["steps"] == last["step"]
    assert figures["tokens"] == pytest.approx(last["tokens"], rel=0.15)
    assert figures["tokens"] <= figures["most_tokens"] == 256 * last["step"]
    assert figures["epochs"]["sentence_reordering"]["text"] > 0
    assert figures["seconds"] > 0
    shown = capsys.readouterr().out
    assert "Stage 4: 8 steps, new: sentence_reordering" in shown
    assert "knowledge_masking          text" in shown


def test_a_corpus_walked_too_often_is_refused_after_the_schedule_and_before_any_measuring(recipe, capsys):
    with pytest.raises(ConfigError, match=r"stages\.max_epochs=0\.1 allows"):
        ernie2.plan(recipe, ["stages.max_epochs=0.1"])
    shown = capsys.readouterr().out
    assert "Stage 4" in shown
    assert "Measuring" not in shown


def test_without_shards_the_schedule_and_the_next_step_are_shown(tmp_path, capsys):
    overrides = [f"run={tmp_path / 'run'}", f"shards.folder={tmp_path / 'shards'}"]
    figures = ernie2.plan("demo-en", overrides)
    assert figures["steps"] == sum(stage["steps"] for stage in figures["stages"])
    assert figures["stages"][0]["tasks"]["knowledge_masking"] == {"iterations": 600, "main": 600, "attached": 0}
    assert "There are no shards yet. Prepare them in" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_without_data_the_schedule_is_shown_and_all_missing_files_are_named(tmp_path, capsys):
    values = load_recipe("demo-en").model_dump(mode="json")
    values["corpora"] = {"books": {"path": str(tmp_path / "a.txt")}, "news": {"path": str(tmp_path / "b.txt")}}
    values["shards"]["folder"] = str(tmp_path / "shards")
    with pytest.raises(DataError, match=r"(?s)corpora\.books\.path.*corpora\.news\.path"):
        ernie2.plan(values)
    assert "steps of 2,048 tokens (1 pack of 2,048)" in capsys.readouterr().out


def test_parameters_counted_without_shards_are_those_of_the_model(tmp_path):
    from ernie2.model.multitask import MultiTaskModel
    from ernie2.runs.build import head_specs
    from tiny import FOUR, task

    recipe = tiny_run.recipe(tmp_path, corpora={"text": {"path": "package:demo-en.jsonl"}})
    figures = ernie2.plan(recipe.model_dump(mode="json"))
    model = MultiTaskModel(recipe.encoder, 1000, head_specs([task(name) for name in FOUR]), 0)
    assert figures["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_shards_of_other_corpora_are_refused(recipe):
    values = {**recipe, "corpora": {**recipe["corpora"], "more": {"path": "more.txt"}}}
    with pytest.raises(ShardError, match=r"contains corpora \['text'\], but the recipe names \['more', 'text'\]"):
        ernie2.plan(values)


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"init_from": "/nowhere"}, CheckpointError, "/nowhere"),
        ({"grow": ["vocabulary"]}, ConfigError, "--grow adds rows to the tables of a checkpoint"),
        ({"hooks": ["no_such_module:Hook"]}, ConfigError, "hook no_such_module:Hook cannot be imported"),
    ],
)
def test_arguments_the_run_would_refuse_are_refused(recipe, tmp_path, prepared, arguments, error, message):
    if not prepared:
        recipe["shards"]["folder"] = str(tmp_path / "none")
    with pytest.raises(error, match=message):
        ernie2.plan(recipe, **arguments)


def test_the_vocabulary_of_a_checkpoint_is_compared_with_that_of_the_shards(recipe, tmp_path):
    run = ernie2.pretrain({**recipe, "run": str(tmp_path / "before")})
    file = run / "hf" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["quux"] = tokenizer["model"]["vocab"].popitem()[1]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises((CheckpointError, ShardError)) as refused:
        ernie2.pretrain(recipe, init_from=run / "hf")
    with pytest.raises(type(refused.value)) as message:
        ernie2.plan(recipe, init_from=run / "hf")
    assert str(message.value) == str(refused.value)


@pytest.mark.parametrize("prepared", [True, False])
def test_an_encoder_that_hugging_face_cannot_load_is_named(recipe, tmp_path, prepared, capsys):
    overrides = ["encoder.norm=pre", *([] if prepared else [f"shards.folder={tmp_path / 'none'}"])]
    with suppress(DataError):  # the corpora are not there
        ernie2.plan(recipe, overrides, seconds=0.1)
    assert "Note: Hugging Face's ErnieModel does not support norm=pre: only ernie2 can load" in capsys.readouterr().err


def test_one_of_a_thing_is_no_plural(recipe, capsys):
    one = ["stages.steps=1", "stages.method=multitask", "tasks={knowledge_masking: {}}"]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        ernie2.plan(recipe, one, seconds=0.1)
        ernie2.pretrain(recipe, one)
    finally:
        torch.set_num_threads(threads)
    shown = capsys.readouterr().out
    assert "1 iteration: main task in 1 step" in shown
    assert "Device: cpu (1 thread)" in shown
    things = "iterations|steps|threads|packs|stages|held-out evaluations|checkpoints|task sets"
    assert re.findall(rf"(?<![\d.,])(?<!of )1 (?:{things})\b", shown) == []
