"""Recipes with their tasks checked: `config.recipe` checks the rest and knows no tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ernie2.config.problems import explain
from ernie2.config.recipe import read_recipe
from ernie2.config.settings import Recipe
from ernie2.errors import Ernie2Error, UnknownTask, did_you_mean
from ernie2.tasks import reading
from ernie2.tasks.base import Task, find, known


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, a shipped recipe's name or a mapping, with overrides such as `train.peak_lr=3e-4`.

    Raises `ConfigError` naming every wrong key (with the nearest right one) and every wrong value at once; the options
    of each task are checked by its own `Options` model.
    """
    return read_recipe(source, overrides, _task_problems)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, with the options of every task that is known; descriptions included.

    A task whose package cannot be imported is left out; under `tasks`, other names are accepted with any options.
    """
    schema = Recipe.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    options = {}
    for name in known():
        try:
            task = find(name)
        except Ernie2Error:
            continue
        options[name] = task.Options.model_json_schema() | {"title": task.title, "description": task.about}
        schema["$defs"] |= options[name].pop("$defs", {})
    schema["properties"]["tasks"]["properties"] = options
    return schema


def _task_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the tasks of a recipe: names, options, and the corpora they are to read."""
    tasks, corpora = values.get("tasks"), values.get("corpora")
    problems: list[str] = []
    named: dict[type[Task], Sequence[str] | None] = {}
    for name, options in tasks.items() if isinstance(tasks, Mapping) else ():
        try:
            task = find(str(name))
        except UnknownTask as error:
            problems.append(f"tasks.{name}: {error}")
            continue
        if options is not None and not isinstance(options, Mapping):
            continue  # the first pass has said so
        try:
            checked = task.Options.model_validate(dict(options or {}))
        except ValidationError as error:
            problems += [f"tasks.{name}.{told}" for told in explain(error, task.Options, options)]
            continue
        names = corpora if isinstance(corpora, Mapping) else {}
        problems += [
            f"tasks.{name}.corpora: there is no corpus {corpus!r}.{did_you_mean(corpus, names)} Known: "
            f"{', '.join(names)}."
            for corpus in checked.corpora or ()
            if corpus not in names
        ]
        named[task] = checked.corpora
    if isinstance(corpora, Mapping) and all(isinstance(corpus, Mapping) for corpus in corpora.values()):
        kinds = {name: "documents" if corpus.get("pairs") is None else "pairs" for name, corpus in corpora.items()}
        problems += reading.problems(named, kinds)
    return problems
