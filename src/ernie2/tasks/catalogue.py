"""Lists of what there is, shipped recipes and known tasks, and copies of shipped recipes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ernie2.config.plain_yaml import parse_yaml
from ernie2.config.recipe import shipped_recipes
from ernie2.errors import ConfigError, Ernie2Error, did_you_mean
from ernie2.storage.atomic import write_text
from ernie2.tasks.base import known
from ernie2.tasks.building import bare_vocabulary, build_task

_RUN = re.compile(r"^run: (?P<value>\S+ +)", re.MULTILINE)
_SHARDS = re.compile(r"^shards:.*\n  folder: (?P<value>\S+ +)", re.MULTILINE)
_PLAIN = re.compile(r"\w[\w./-]*", re.ASCII)


def list_recipes() -> dict[str, str]:
    """Names of the shipped recipes, each with what it is for."""
    return {name: str(parse_yaml(text, name).get("about", "")) for name, text in sorted(shipped_recipes().items())}


def write_recipe(name: str, destination: str | Path) -> Path:
    """Write a copy of a shipped recipe, with a run folder and a shards folder named after `destination`.

    my.yaml -> my/run and my/shards, so that the copy never meets the run or shards of the recipe it was copied from.
    Raises `ConfigError` where `destination` exists.
    """
    shipped, destination = shipped_recipes(), Path(destination)
    if name not in shipped:
        raise ConfigError(
            f"no recipe is called {name!r}.{did_you_mean(name, shipped)} Known: {', '.join(sorted(shipped))}."
        )
    if destination.exists():
        raise ConfigError(f"{destination} exists; choose another name or remove it first.")
    text = shipped[name]
    for key, folder in ((_RUN, "run"), (_SHARDS, "shards")):
        text = _with_value(text, key, f"{destination.stem}/{folder}")
    write_text(destination, text)
    return destination


def _with_value(text: str, key: re.Pattern[str], value: str) -> str:
    """A recipe with another value for a key; the comment beside it stays where it was, if there is room."""
    found = key.search(text)
    assert found is not None  # every shipped recipe has both keys
    quoted = value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    start, end = found.span("value")
    return text[:start] + quoted.ljust(end - start - 1) + " " + text[end:]


def list_tasks() -> list[dict[str, Any]]:
    """Every task that can be named: name, title, level, labels, needs, about, origin.

    `labels` is their number; None: the vocabulary; 0: those of the data it will read. A task that cannot be built with
    its default options has name, origin and `error` instead.
    """
    listed: list[dict[str, Any]] = []
    for name, origin in known().items():
        try:
            task = build_task(name, None, bare_vocabulary())
        except Ernie2Error as error:
            listed.append({"name": name, "origin": origin, "error": " ".join(str(error).split())})
            continue
        listed.append(
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
    return listed
