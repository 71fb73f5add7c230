"""Load recipes and validate their tasks (`config.recipe` validates the rest); list shipped recipes and tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ernie2.config.plain_yaml import parse_yaml
from ernie2.config.problems import explain
from ernie2.config.recipe import read_recipe, shipped_recipes
from ernie2.config.settings import Recipe
from ernie2.errors import ConfigError, Ernie2Error, UnknownTask, did_you_mean
from ernie2.storage.atomic import write_text
from ernie2.tasks.base import Task, find_task, known_tasks
from ernie2.tasks.building import build_task, corpus_problems, special_tokens_vocabulary

_RUN = re.compile(r"^run: (?P<value>\S+ +)", re.MULTILINE)
_SHARDS = re.compile(r"^shards:.*\n  folder: (?P<value>\S+ +)", re.MULTILINE)
_PLAIN = re.compile(r"\w[\w./-]*", re.ASCII)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe from a file, a shipped recipe's name or a mapping, with overrides such as `train.peak_lr=3e-4`.

    The `Options` model of each task validates its options. Raises `ConfigError` listing all invalid keys, each with
    the closest valid key, and all invalid values.
    """
    return read_recipe(source, overrides, _task_problems)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe with descriptions and the options of all known tasks.

    Tasks whose package cannot be imported are omitted; under `tasks`, other names are accepted with any options.
    """
    schema = Recipe.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    options = {}
    for name in known_tasks():
        try:
            task = find_task(name)
        except Ernie2Error:
            continue
        options[name] = task.Options.model_json_schema() | {"title": task.title, "description": task.about}
        schema["$defs"] |= options[name].pop("$defs", {})
    schema["properties"]["tasks"]["properties"] = options
    return schema


def _task_problems(values: Mapping[str, Any]) -> list[str]:
    """Return the problems with the tasks of a recipe: names, options, and corpora."""
    tasks, corpora = values.get("tasks"), values.get("corpora")
    problems: list[str] = []
    named: dict[type[Task], Sequence[str] | None] = {}
    for name, options in tasks.items() if isinstance(tasks, Mapping) else ():
        try:
            task = find_task(str(name))
        except UnknownTask as error:
            problems.append(f"tasks.{name}: {error}")
            continue
        if options is not None and not isinstance(options, Mapping):
            continue  # reported by `Recipe`
        try:
            checked = task.Options.model_validate(dict(options or {}))
        except ValidationError as error:
            problems += [f"tasks.{name}.{problem}" for problem in explain(error, task.Options, options)]
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
        problems += corpus_problems(named, kinds)
    return problems


def list_recipes() -> dict[str, str]:
    """Return the shipped recipes: name → description."""
    return {name: str(parse_yaml(text, name).get("about", "")) for name, text in sorted(shipped_recipes().items())}


def write_recipe(name: str, destination: str | Path) -> Path:
    """Copy a shipped recipe to `destination`, and name its run and shards folders after `destination`.

    my.yaml gets my/run and my/shards, so that the copy does not share folders with the original. Raises `ConfigError`
    if `destination` exists.
    """
    shipped, destination = shipped_recipes(), Path(destination)
    if name not in shipped:
        raise ConfigError(
            f"there is no recipe {name!r}.{did_you_mean(name, shipped)} Known: {', '.join(sorted(shipped))}."
        )
    if destination.exists():
        raise ConfigError(f"{destination} exists; choose another name or remove it first.")
    text = shipped[name]
    for key, folder in ((_RUN, "run"), (_SHARDS, "shards")):
        text = _replace_value(text, key, f"{destination.stem}/{folder}")
    write_text(destination, text)
    return destination


def _replace_value(text: str, key: re.Pattern[str], value: str) -> str:
    """Replace the value of a key in a recipe; the comment after it stays in its column if possible."""
    quoted = value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return key.sub(lambda match: match[0].replace(match["value"], quoted.ljust(len(match["value"]) - 1) + " "), text, 1)


def list_tasks() -> list[dict[str, Any]]:
    """Return all known tasks: name, title, level, labels, needs, about, origin.

    `labels`: number of labels; None: the vocabulary; 0: labels from the data. A task that cannot be built with default
    options has only name, origin and `error`.
    """
    tasks: list[dict[str, Any]] = []
    for name, origin in known_tasks().items():
        try:
            task = build_task(name, None, special_tokens_vocabulary())
        except Ernie2Error as error:
            tasks.append({"name": name, "origin": origin, "error": " ".join(str(error).split())})
            continue
        tasks.append(
            {
                "name": task.name,
                "title": task.title,
                "level": task.level,
                "labels": None if task.labels is None else len(task.labels),
                "needs": task.needs,
                "about": task.about,
                "origin": origin,
            }
        )
    return tasks
