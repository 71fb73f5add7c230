"""Checkpoints to fine-tune: task ids, lengths and tokenisers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny_finetuning as tiny
import tiny_run
from ernie2.errors import CheckpointError, ConfigError
from ernie2.finetuning.jobs import Job
from ernie2.finetuning.pretrained import PretrainedCheckpoint, fit_lengths, load_pretrained
from ernie2.finetuning.runs import run_seeds
from ernie2.runs.build import build
from ernie2.runs.export import export_hf
from ernie2.shards.tokenizer import load_tokenizer
from ernie2.training.records import Records

IDS = {"knowledge_masking": 0, "sentence_distance": 1, "ir_relevance": 2}


@pytest.fixture
def pretrained(tmp_path: Path) -> PretrainedCheckpoint:
    """Sixteen rows, of which two were trained."""
    seen = {"knowledge_masking": 900, "sentence_distance": 30, "ir_relevance": 0}
    return tiny.pretrained(tmp_path, with_ids=IDS, instances=seen)


def test_a_task_id_is_a_name_or_a_row(pretrained: PretrainedCheckpoint) -> None:
    assert pretrained.task_id(None, tiny.settings())[0] == 0
    assert pretrained.task_id("sentence_distance", tiny.settings())[0] == 1
    assert pretrained.task_id("1", tiny.settings())[0] == 1


@pytest.mark.parametrize("requested", ["ir_relevance", "2"])
def test_an_untrained_task_id_is_refused_and_the_trained_ones_are_listed(
    requested: str, pretrained: PretrainedCheckpoint
) -> None:
    with pytest.raises(CheckpointError, match=r"ir_relevance \(task id 2\) was not trained.*sentence_distance \(30\)"):
        pretrained.task_id(requested, tiny.settings())


def test_a_row_without_a_task_is_refused(pretrained: PretrainedCheckpoint) -> None:
    with pytest.raises(CheckpointError, match="task id 7, which belongs to no task"):
        pretrained.task_id("7", tiny.settings())


def test_the_papers_task_id_falls_back_to_0_if_the_checkpoint_was_not_trained_with_it(
    pretrained: PretrainedCheckpoint,
) -> None:
    row, note = pretrained.task_id(None, tiny.settings(task_id=2))
    assert row == 0
    assert "not trained with task id 2 of the settings" in note
    with pytest.raises(CheckpointError, match="ir_relevance"):
        pretrained.task_id(None, tiny.settings(task_id=2), explicit=True)


def test_unknown_names_and_rows_beyond_the_table_are_refused(pretrained: PretrainedCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'sentence_distance'\?"):
        pretrained.task_id("sentence_distence", tiny.settings())
    with pytest.raises(ConfigError, match="task embedding of 16 rows, so task id 16 does not exist"):
        pretrained.task_id("16", tiny.settings())
    untrained = tiny.pretrained(tmp_path / "bare")
    with pytest.raises(ConfigError, match="has no task embedding"):
        untrained.task_id("1", tiny.settings())


def test_lengths_are_reduced_to_the_positions_with_a_note(pretrained: PretrainedCheckpoint) -> None:
    fitted, notes = fit_lengths(tiny.settings(max_length=512, max_query_length=64), pretrained, "span")
    assert (fitted.max_length, fitted.max_query_length) == (64, 32)
    assert "max_length 512 → 64" in notes[0]
    assert fit_lengths(tiny.settings(max_query_length=10), pretrained, "span") == (
        tiny.settings(max_query_length=10),
        (),
    )
    assert fit_lengths(tiny.settings(max_query_length=64), pretrained, "tagging") == (
        tiny.settings(max_query_length=64),
        (),
    )


def test_a_missing_or_wrong_tokeniser_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="has no tokeniser"):
        load_pretrained(folder)
    assert load_pretrained(folder, folder / "words.txt").tokenizer.vocab_size == len(tiny.VOCABULARY)
    (folder / "more.txt").write_text("\n".join([*tiny.VOCABULARY, "one", "more"]) + "\n")
    with pytest.raises(CheckpointError, match="Give the right tokeniser"):
        load_pretrained(folder, folder / "more.txt")


def test_a_cased_vocabulary_file_stays_cased(tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint")
    (folder / "tokenizer.json").unlink()
    assert not load_pretrained(folder).tokenizer.cased
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_pretrained(folder).tokenizer.encode_batch(["W1"])[0].tokens == ["[UNK]"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_act", "relu"), ("num_attention_heads", 1), ("layer_norm_eps", 1e-12), ("use_task_id", False)],
)
def test_the_same_parameters_under_other_settings_are_another_checkpoint(key: str, value: Any, tmp_path: Path) -> None:
    folder = tiny.write_checkpoint(tmp_path / "checkpoint", with_ids=IDS)
    before = load_pretrained(folder).fingerprint()
    assert load_pretrained(folder).fingerprint() == before
    config = json.loads((folder / "config.json").read_text())
    assert config[key] != value
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    assert load_pretrained(folder).fingerprint() != before


@pytest.mark.parametrize("part", ["", "hf"])
def test_a_run_is_fine_tuned_under_the_ids_it_was_trained_with(part: str, tmp_path: Path) -> None:
    shards = tiny_run.write_shards(tmp_path / "shards")
    built = build(tiny_run.recipe(tmp_path), shards)
    built.trainer.train()
    Records(tmp_path / "run").describe(built.record)
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    seen = load_pretrained(tmp_path / "run").stored.metadata["ernie2_task_instances"]
    export_hf(tmp_path / "run/hf", built.trainer.model, tokenizer, built.record, {}, seen)
    pretrained = load_pretrained(tmp_path / "run" / part)
    assert pretrained.tokenizer.vocab_size == 1000
    assert (
        pretrained.task_id("sentence_reordering", tiny.settings())[0]
        == pretrained.stored.task_ids["sentence_reordering"]
    )
    with pytest.raises(CheckpointError, match="task id 9, which belongs to no task"):
        pretrained.task_id("9", tiny.settings())
    data = tiny.data("classification")
    settings, _ = fit_lengths(tiny.settings(epochs=1), pretrained, "classification")
    (run,) = run_seeds(Job(pretrained, data, settings, 0, tmp_path / "tuned"), [0])
    assert set(run.metrics["dev"]) == {"accuracy"}
