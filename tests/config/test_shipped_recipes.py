"""The shipped recipes are right, and the annotated one explains every key there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from ernie2.config.recipe import shipped_recipes
from ernie2.config.settings import Recipe
from ernie2.corpora.documents import Drops, read_documents
from ernie2.tasks.base import find
from ernie2.tasks.recipe import load_recipe

NAMES = sorted(shipped_recipes())


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from models_in(argument)


def keys_of(model: type[BaseModel]) -> set[str]:
    """Every key of a settings model and of the models inside it."""
    nested = [keys_of(part) for field in model.model_fields.values() for part in models_in(field.annotation)]
    return set(model.model_fields).union(*nested)


def lines_with(key: str, text: str) -> list[str]:
    """Lines that give the key a value, or show it inside a comment where it has no place beside the others."""
    return re.findall(rf"(?m)^[ #]*{re.escape(key)}:.*$", text)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_is_accepted_and_carries_its_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_every_key_stands_in_every_shipped_recipe_with_a_comment(name: str) -> None:
    text = shipped_recipes()[name]
    for key in keys_of(Recipe):
        lines = lines_with(key, text)
        assert lines, f"{name} does not show {key!r}"
        assert any("#" in line for line in lines) or key == "train", f"{name} does not explain {key!r}"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_task_stands_under_it(name: str) -> None:
    shown = yaml.safe_load(shipped_recipes()[name])["tasks"]
    common = {"corpora", "loss_weight"}  # shown once, under the first task
    assert common <= set(next(iter(shown.values())))
    for task, options in shown.items():
        assert set(find(task).Options.model_fields) - common == set(options) - common


@pytest.mark.parametrize("name", NAMES)
def test_a_value_differs_from_its_default_only_where_the_comment_gives_the_default(name: str) -> None:
    text, recipe = shipped_recipes()[name], load_recipe(name)
    for part in ("batch", "encoder", "stages"):
        settings = getattr(recipe, part)
        for key, field in type(settings).model_fields.items():
            default = field.default
            if getattr(settings, key) != default and default is not None:
                (line,) = lines_with(key, text)
                assert f"default {default}" in line, line


@pytest.mark.parametrize("name", ["demo-en", "demo-zh"])
def test_the_shipped_corpora_read_without_a_single_drop(name: str) -> None:
    drops = Drops()
    (corpus,) = load_recipe(name).corpora.values()
    documents = list(read_documents(corpus, drops))
    assert drops.as_dict() == {}
    sources = {document.id.split("#")[0] for document in documents}
    assert (len(documents), sources) == {
        "demo-en": (25, {"the-time-machine", "the-adventures-of-sherlock-holmes"}),
        "demo-zh": (122, {"law", "recipe"}),
    }[name]
