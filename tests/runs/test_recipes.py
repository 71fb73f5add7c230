"""Lists of recipes and tasks, and copies of recipes."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import ernie2
from ernie2.cli.app import app
from ernie2.runs.recipes import load_recipe
from ernie2.tasks import base
from ernie2.tasks.base import TokenTask


class Fails(TokenTask):
    name, labels, title, about = "fails", ("a", "b"), "Fails", "Does it fail?"

    def __init__(self, options, vocabulary):
        raise KeyError("no such token")


class Reads(TokenTask):
    name, labels, title, about = "reads", ("a", "b"), "Reads", "Does it read?"

    def __init__(self, options, vocabulary):
        super().__init__(options, vocabulary)
        self.digits = [any(map(str.isdigit, token)) for token in vocabulary.tokens]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    for task in (Fails, Reads):
        monkeypatch.setitem(base._TASKS, task.name, task)


def test_a_task_that_cannot_be_built_is_listed_with_its_error_beside_the_others():
    listed = {task["name"]: task for task in ernie2.list_tasks()}
    assert listed["knowledge_masking"]["labels"] is None
    assert listed["reads"]["labels"] == 2
    assert listed["fails"] == {
        "name": "fails",
        "origin": __name__,
        "error": f"task 'fails' of {__name__} cannot be built: KeyError('no such token'), {__file__}, line 19.",
    }


def test_ernie2_tasks_names_it_and_ends_well():
    result = CliRunner().invoke(app, ["tasks"])
    assert result.exit_code == 0
    assert f"fails (from {__name__}) cannot be used: task 'fails' of" in " ".join(result.output.split())
    assert f"reads  (token-level, 2 labels, from {__name__})" in result.output


@pytest.mark.parametrize("name", sorted(ernie2.list_recipes()))
def test_a_copied_recipe_has_folders_named_after_its_file_and_is_the_same_otherwise(name, tmp_path):
    shipped = load_recipe(name).model_dump()
    written = load_recipe(ernie2.write_recipe(name, tmp_path / "my.yaml")).model_dump()
    assert (written.pop("run"), written["shards"].pop("folder")) == ("my/run", "my/shards")
    shipped.pop("run")
    shipped["shards"].pop("folder")
    assert written == shipped


@pytest.mark.parametrize("stem", ["demo-en", "12", "a: b #c", '"', "- x", "mein Text", "null", "a\\1"])
def test_any_file_name_names_the_folders(stem, tmp_path):
    recipe = load_recipe(ernie2.write_recipe("demo-en", tmp_path / f"{stem}.yaml"))
    assert (recipe.run, recipe.shards.folder) == (f"{stem}/run", f"{stem}/shards")


def test_the_comment_beside_a_folder_stays_in_its_column(tmp_path):
    lines = ernie2.write_recipe("all-seven", tmp_path / "my.yaml").read_text().splitlines()
    assert "run: my/run                      # the run folder" in lines
    assert "  folder: my/shards              # folder of the prepared dataset" in lines
