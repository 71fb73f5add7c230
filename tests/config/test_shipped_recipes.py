"""The shipped recipes are valid, and demo-en explains every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from ernie2.config.recipe import shipped_recipes
from ernie2.config.settings import Recipe
from ernie2.corpora.documents import Drops, read_documents
from ernie2.runs.recipes import load_recipe
from ernie2.tasks.base import BUILT_IN, find_task

NAMES = sorted(shipped_recipes())
ANNOTATED = "demo-en"


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


def test_the_annotated_recipe_shows_every_key_with_a_comment() -> None:
    text = shipped_recipes()[ANNOTATED]
    for key in keys_of(Recipe) | {key for name in BUILT_IN for key in find_task(name).Options.model_fields}:
        lines = lines_with(key, text)
        assert lines, f"{key!r} is missing"
        assert any("#" in line for line in lines) or key == "train", f"{key!r} is not explained"


@pytest.mark.parametrize("name", NAMES)
def test_a_value_differs_from_its_default_only_where_the_comment_gives_the_default(name: str) -> None:
    text, recipe = shipped_recipes()[name], load_recipe(name)
    parts = ("batch", "encoder", "stages", "shards") + (("train",) if name == ANNOTATED else ())
    for settings in (getattr(recipe, part) for part in parts):
        for key, field in type(settings).model_fields.items():
            default = field.default
            if not field.is_required() and getattr(settings, key) != default and default is not None:
                (line,) = lines_with(key, text)
                (message,) = re.findall(r"default ([\w.-]*\w)|(\w+) \(default\)", line)
                assert str(default) in message or float(message[0]) == default, line


@pytest.mark.parametrize("name", [name for name in NAMES if name != ANNOTATED])
def test_other_recipes_are_short_and_name_the_annotated_one(name: str) -> None:
    text = shipped_recipes()[name]
    assert f"`ernie2 recipes {ANNOTATED}` writes a recipe with every key explained" in text
    assert len(re.findall(r"(?m)^ *[a-z_]+:", text)) < len(re.findall(r"(?m)^ *[a-z_]+:", shipped_recipes()[ANNOTATED]))


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
