"""A recipe that names data which is not there says so once, for all of it, with what to do."""

import pytest

import ernie2
from ernie2.errors import DataError
from ernie2.runs.absent import absent_data, require_data
from ernie2.tasks.recipe import load_recipe


def test_everything_absent_is_named_at_once_by_its_key(tmp_path):
    values = load_recipe("demo-en").model_dump(mode="json")
    values["corpora"]["news"] = {"path": str(tmp_path / "news-*.jsonl.gz")}
    values["corpora"]["dialog"] = {"path": [str(tmp_path / "dialog.txt")]}
    values["tokenizer"] = {"file": str(tmp_path / "vocab.txt")}
    values["knowledge"]["gazetteer"] = str(tmp_path / "entities.txt")
    lines = absent_data(load_recipe(values))
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
    assert "remove the corpus there, with the tasks that use only it" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_whose_data_are_there_passes():
    require_data(load_recipe("demo-en"))
