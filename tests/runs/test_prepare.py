"""Messages at the end of `prepare`, and its errors before any training."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ernie2
import tiny
import tiny_run
from ernie2.errors import DataError, TaskError
from ernie2.runs.prepare import missing_data, require_data
from ernie2.runs.recipes import load_recipe

LOST = "; dropped documents: 3 duplicate, 2 empty text"


@pytest.fixture
def recipe(tmp_path):
    rows = [f"The {word} sat on a mat. Then it left. Nobody saw it." for word in ("cat", "dog", "hen", "cow", "pig")]
    rows = [*rows, *rows[:3], "", " "]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text, "book": "b"}) + "\n" for text in rows))
    made = tiny_run.recipe(tmp_path, corpora={"text": {"path": str(tmp_path / "in.jsonl")}}, tokenizer={"train": 200})
    return made.model_dump(mode="json") | {"tasks": {"knowledge_masking": {}}}


def test_dropped_documents_and_unknown_tokens_are_reported_by_reason_and_number(tmp_path, capsys):
    texts = [
        "rain fell in town.",
        "rain fell in town.",
        "",
        "\u200b",
        "snow fell. rain fell.",
        "it rained in town. it snowed.",
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts * 2))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rain", "fell", "in", "town", ".", "snow", "it", "##ed"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    ernie2.prepare(
        {
            "name": "test",
            "run": str(tmp_path / "run"),
            "corpora": {"text": {"path": str(tmp_path / "in.jsonl"), "licence": "test", "language": "en"}},
            "tokenizer": {"file": str(tmp_path / "vocab.txt")},
            "knowledge": {"phrases": None},
            "shards": {"folder": str(tmp_path / "shards"), "heldout": 0, "min_heldout": 1},
            "tasks": {"knowledge_masking": {}},
        },
        workers=1,
    )
    shown = capsys.readouterr().err
    assert "vocab.txt: no file beside it sets do_lower_case; 0 of its 7 tokens with letters have capitals" in shown
    assert "text: 0.00 % of tokens are [UNK]; dropped documents: 6 duplicate, 2 empty text, 1 no tokens" in shown


def test_dropped_data_are_reported_again_if_the_shards_exist(recipe, capsys):
    for _ in range(2):
        ernie2.prepare(recipe, workers=1)
        assert [line[:5] for line in capsys.readouterr().err.splitlines() if line.endswith(LOST)] == ["text:"]


def test_a_run_that_prepares_says_what_was_dropped(recipe, capsys):
    ernie2.pretrain(recipe, ["stages.steps=1", "stages.max_epochs=1000"], workers=1)
    assert LOST in capsys.readouterr().err


def test_a_task_the_corpus_can_never_show_is_refused_by_prepare_and_by_a_dry_run(recipe):
    """Three sentences a text are enough; texts of one book alone are not."""
    recipe["tasks"] = {"knowledge_masking": {}, "sentence_distance": {}}
    ernie2.prepare(recipe, workers=1)
    recipe["corpora"]["text"]["group"] = "book"
    with pytest.raises(TaskError, match=r"'sentence_distance'.*0 of 5 documents \(all are of one group\) of 'text'"):
        ernie2.prepare(recipe, workers=1, replace=True)
    with pytest.raises(TaskError, match=r"'sentence_distance'.*\(all are of one group\)"):
        ernie2.plan(recipe)


def test_tasks_that_no_held_out_document_shows_are_named(recipe, capsys):
    ernie2.prepare({**recipe, "tasks": {"sentence_distance": {}}}, ["shards.min_heldout=1"], workers=1)
    assert "No held-out documents for sentence_distance; prepare with a larger" in capsys.readouterr().err


def test_a_note_is_printed_once_for_all_its_corpora_and_not_again_on_resume(tmp_path, capsys):
    rng = np.random.default_rng(5)
    more = [tiny.random_document(rng, name=f"more{i}", group=50 + i) for i in range(12)]
    tiny_run.write_shards(tmp_path / "shards", pairs={"more": more})
    recipe = tiny_run.recipe(tmp_path).model_dump(mode="json")
    recipe |= {"corpora": {name: {"path": "nowhere.txt"} for name in ("text", "more")}}
    run = ernie2.pretrain(recipe)
    notes = [line for line in capsys.readouterr().err.splitlines() if "no phrases found" in line]
    assert [line.partition(":")[2].partition(" found")[0] for line in notes] == [
        " knowledge_masking, corpora text, more: no phrases"
    ]
    (run / "hf").rename(tmp_path / "away")
    ernie2.resume(run)
    ernie2.extend(run, "sentence_distance", tmp_path / "shards")
    assert "no phrases found" not in capsys.readouterr().err


def test_everything_absent_is_named_at_once_by_its_key(tmp_path):
    values = load_recipe("demo-en").model_dump(mode="json")
    values["corpora"]["news"] = {"path": str(tmp_path / "news-*.jsonl.gz")}
    values["corpora"]["dialog"] = {"path": [str(tmp_path / "dialog.txt")]}
    values["tokenizer"] = {"file": str(tmp_path / "vocab.txt")}
    values["knowledge"]["gazetteer"] = str(tmp_path / "entities.txt")
    lines = missing_data(load_recipe(values))
    assert [line.split(": ")[0] for line in lines] == [
        "corpora.news.path",
        "corpora.dialog.path",
        "tokenizer.file",
        "knowledge.gazetteer",
    ]
    with pytest.raises(DataError) as error:
        ernie2.pretrain({**values, "run": str(tmp_path / "run")}, [f"shards.folder={tmp_path / 'shards'}"])
    assert all(line in str(error.value) for line in lines)
    assert "corpora.news.path=FILE" in str(error.value)
    assert "remove the corpus there and the tasks that use only it" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_whose_data_are_there_passes():
    require_data(load_recipe("demo-en"))
