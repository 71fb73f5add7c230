"""Labelled pairs from shards to a trained, exported and evaluated model; classes keep their order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ernie2
import tiny
import tiny_run
from ernie2.errors import CheckpointError, StorageError, TaskError
from ernie2.runs.build import build, head_specs
from ernie2.runs.load import load_checkpoint, warm_start
from ernie2.shards.store import Shards
from ernie2.tasks.building import build_tasks

MASKING, DISCOURSE = "knowledge_masking", "discourse_relation"
LABELS = ("so", "but", "and")
"""The order of the recipe, which is not that of the alphabet."""


def pairs(labels=LABELS, count=24, seed=1):
    """Pairs whose second text begins with a word that tells the label: 200 and further, by the name of the label."""
    rng, made = np.random.default_rng(seed), []
    for number in range(count):
        label = labels[number % len(labels)]
        texts = [[rng.integers(5, 100, 6).tolist()], [[200 + len(label), *rng.integers(5, 100, 5).tolist()]]]
        made.append(tiny.document(texts, label=label, name=f"pair{number}", group=100 + number))
    return made


def recipe(folder: Path, run: str = "run", **tasks):
    corpora = {"text": {"path": "nowhere.txt"}, "web": {"path": "nowhere.tsv", "pairs": {}}}
    made = tiny_run.recipe(
        folder, run=str(folder / run), corpora=corpora, stages={"steps": 6}, train={"heldout_instances": 6}
    )
    chosen = {MASKING: {"corpora": ["text"]}, DISCOURSE: {"labels": list(LABELS)}} | tasks
    return made.model_copy(update={"tasks": chosen})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of masking on text and discourse relation on pairs: (folder, shards)."""
    folder = tmp_path_factory.mktemp("pairs")
    shards = tiny_run.write_shards(folder / "shards", pairs={"web": pairs()})
    ernie2.pretrain(recipe(folder).model_dump(mode="json"))
    return folder, shards


def test_a_run_keeps_the_labels_in_their_order_where_everything_downstream_looks(trained):
    folder, _ = trained
    facts = json.loads((folder / "run" / "run.json").read_text())
    assert facts["tasks"][1]["labels"] == facts["recipe"]["tasks"][DISCOURSE]["labels"] == list(LABELS)
    assert list(facts["data"]["usable"][DISCOURSE]) == ["web"]
    assert list(facts["data"]["usable"][MASKING]) == ["text"]
    config = json.loads((folder / "run" / "hf" / "config.json").read_text())
    assert config["ernie2_task_options"][DISCOURSE]["labels"] == list(LABELS)
    assert config["ernie2_heads"][DISCOURSE] == {"level": "sentence", "classes": 3}
    heldout = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = [line["tasks"][DISCOURSE] for line in heldout if line["kind"] == "heldout"]
    assert figures[-1]["instances"] == 4
    assert figures[-1]["feature_baseline"]["feature"] == "share of tokens in common"


def test_evaluating_the_run_and_its_hugging_face_folder_gives_the_figures_the_run_ended_with(trained):
    folder, shards = trained
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "heldout"][-1]["tasks"][DISCOURSE]
    folders = {folder / "run": 1e-5, folder / "run" / "hf": 1e-3}  # without a recipe a CPU may evaluate in bf16
    for checkpoint, rounding in folders.items():
        figures = ernie2.evaluate(checkpoint, shards.folder)[DISCOURSE]
        assert figures["instances"] == last["instances"]
        assert figures["loss"] == pytest.approx(last["loss"], rel=rounding)
        assert figures["accuracy"] == last["accuracy"]


def test_labels_from_the_data_stay_the_same_on_resume_evaluation_and_export(tmp_path, monkeypatch):
    def full(*_, **__):
        raise StorageError("no space")

    tiny_run.write_shards(tmp_path / "shards", pairs={"web": pairs()})
    with monkeypatch.context() as during:
        during.setattr("ernie2.runs.folder.export_hf", full)
        with pytest.raises(StorageError, match="no space"):
            ernie2.pretrain(recipe(tmp_path, **{DISCOURSE: {}}).model_dump(mode="json"))
    stopped = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stopped["recipe"]["tasks"][DISCOURSE]["labels"] == stopped["tasks"][1]["labels"] == ["and", "but", "so"]
    run = ernie2.resume(tmp_path / "run")
    assert json.loads((run / "run.json").read_text())["recipe"] == stopped["recipe"]
    fewer = tiny_run.write_shards(tmp_path / "fewer", pairs={"web": pairs(("so", "but"))})
    for checkpoint in (run, run / "hf"):
        assert load_checkpoint(checkpoint, fewer).tasks[1].labels == ("and", "but", "so")


@pytest.mark.parametrize("which", ["run", "run/hf"])
def test_shards_of_other_pairs_are_measured_in_the_classes_of_the_run(trained, tmp_path, which):
    folder, _ = trained
    other = tiny_run.write_shards(tmp_path / "shards", pairs={"web": pairs(("but", "and"), seed=2)})
    loaded = load_checkpoint(folder / which, other)
    assert loaded.tasks[1].labels == LABELS
    assert ernie2.evaluate(folder / which, other.folder)[DISCOURSE]["instances"] > 0
    stranger = tiny_run.write_shards(tmp_path / "strange", pairs={"web": pairs(("but", "meanwhile"))})
    with pytest.raises(TaskError, match=r"corpus 'web', whose label 'meanwhile' is none of its classes"):
        load_checkpoint(folder / which, stranger)


@pytest.mark.parametrize("which", ["run", "run/hf"])
def test_shards_without_the_corpora_of_the_recipe_are_read_as_far_as_they_fit(trained, tmp_path, which, capsys):
    folder, shards = trained
    run = tmp_path / "run"
    ernie2.pretrain(
        recipe(folder, str(run), **{DISCOURSE: {"corpora": ["web"], "labels": list(LABELS)}}).model_dump(mode="json")
    )
    other = tiny_run.write_shards(
        tmp_path / "shards", pairs={"books": pairs(("but", "and")), "clicks": pairs(("0", "1"))}
    )
    loaded = load_checkpoint(tmp_path / which, other)
    assert loaded.tasks[1].options.corpora == ("books",)
    output = capsys.readouterr()
    assert "discourse_relation was trained on web" in output.out + output.err
    assert load_checkpoint(tmp_path / which, shards).tasks[1].options.corpora == ("web",)


@pytest.mark.parametrize("which", ["run", "run/hf"])
def test_a_warm_start_on_other_pairs_matches_rows_by_label(trained, tmp_path, which):
    folder, shards = trained
    other = tiny_run.write_shards(tmp_path / "shards", pairs={"web": pairs(("and", "so", "then", "if"))})
    tasks = build_tasks({MASKING: {}, DISCOURSE: {}}, tiny.VOCABULARY, other.corpora)
    assert tasks[1].labels == ("and", "if", "so", "then")
    labels = {DISCOURSE: tasks[1].labels}
    settings = recipe(folder).encoder
    started = warm_start(folder / which, settings, head_specs(tasks), 5, other, labels)
    theirs, ours = load_checkpoint(folder / "run", shards).model.state_dict(), started.model.state_dict()
    name = f"heads.{DISCOURSE}.linear.weight"
    assert torch.equal(ours[name][[0, 2]], theirs[name][[2, 0]])  # and, so
    assert not torch.equal(ours[name][1], ours[name][3])
    assert f"heads.{DISCOURSE}, labels 'if', 'then'" in started.report.new
    assert f"heads.{DISCOURSE}, labels 'but'" in started.report.left_out
    for parameter in theirs:
        if not parameter.startswith((f"heads.{DISCOURSE}", "encoder.embeddings.task")):
            assert torch.equal(ours[parameter], theirs[parameter]), parameter
    with pytest.raises(CheckpointError, match="shape"):
        warm_start(folder / which, settings, head_specs(tasks), 5, other)  # without names there is no way


def test_a_warm_start_by_command_lists_new_labels(trained, tmp_path, capsys):
    folder, _ = trained
    tiny_run.write_shards(tmp_path / "shards", pairs={"web": pairs(("and", "then"))})
    values = recipe(tmp_path, **{DISCOURSE: {}}).model_dump(mode="json")
    run = ernie2.pretrain(values, init_from=folder / "run")
    output = capsys.readouterr()
    (new,) = (line for line in (output.out + output.err).splitlines() if "newly initialised" in line)
    assert "heads.discourse_relation, labels 'then'" in new
    assert json.loads((run / "run.json").read_text())["tasks"][1]["labels"] == ["and", "then"]


def test_tasks_are_attached_to_pairs_only_if_the_recipe_says_so(trained, tmp_path):
    _, shards = trained

    def rides(masking, discourse):
        made = build(recipe(tmp_path, **{MASKING: masking, DISCOURSE: discourse}), shards)
        plans = made.trainer.plans
        return sum(
            DISCOURSE in plan.active_tasks(k) and MASKING in plan.active_tasks(k)
            for plan in plans
            for k in range(len(plan))
        )

    both = {"corpora": ["text", "web"]}
    assert rides({}, {}) == 0
    assert rides(both, {}) == 0
    assert rides(both, {"allows_attached_tasks": True}) > 0
    with pytest.raises(
        TaskError, match=r"'discourse_relation' allows attached tasks.* none of knowledge_masking reads its lab"
    ):
        rides({}, {"allows_attached_tasks": True})


def test_masking_attached_to_pairs_masks_both_texts_under_the_id_of_the_main_task(trained, tmp_path):
    _, shards = trained
    tasks = {MASKING: {"corpora": ["text", "web"]}, DISCOURSE: {"allows_attached_tasks": True}}
    streams = build(recipe(tmp_path, **tasks), shards).trainer.streams
    cursor = None
    for _ in range(10):
        instance, cursor, row = streams.instance(0, cursor, DISCOURSE, (MASKING, DISCOURSE))
        assert row == 1
        assert set(instance.labels) == {MASKING, DISCOURSE}
        assert instance.sequence.segment_count == 2


def test_another_document_never_comes_out_of_a_pair_corpus(trained, tmp_path):
    _, shards = trained
    made = build(recipe(tmp_path, **{MASKING: {}, "sentence_distance": {}, DISCOURSE: {}}), shards)
    streams, cursor = made.trainer.streams, None
    names = {corpus.name for corpus in streams.feeds["sentence_distance"].corpora}
    assert names == {"text"}
    for _ in range(40):
        instance, cursor, _ = streams.instance(0, cursor, "sentence_distance", ("sentence_distance",))
        assert set(cursor.corpora) == {"text"}
        assert (instance.sequence.tokens != 203).all()  # the first word of the second text of a pair


def test_two_tasks_on_two_pair_corpora_have_the_labels_of_their_own(tmp_path):
    shards = tiny_run.write_shards(
        tmp_path / "shards", pairs={"web": pairs(), "clicks": pairs(("0", "1", "2"), seed=3)}
    )
    tasks = build_tasks(
        {DISCOURSE: {"corpora": ["web"]}, "ir_relevance": {"corpora": ["clicks"]}}, tiny.VOCABULARY, shards.corpora
    )
    assert [task.labels for task in tasks] == [("and", "but", "so"), ("0", "1", "2")]
    assert isinstance(Shards(shards.folder).corpora["clicks"].labels, tuple)
