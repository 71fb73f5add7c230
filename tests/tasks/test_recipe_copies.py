"""A copy of a shipped recipe: the same, but for where its run and shards go."""

from __future__ import annotations

import pytest

import ernie2
from ernie2.tasks.recipe import load_recipe


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
    assert "  folder: my/shards              # where they go" in lines
