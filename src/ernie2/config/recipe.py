"""Recipe files: YAML and dotted overrides → a validated, frozen `Recipe`, or one error that lists all problems.

`ernie2.runs.recipes.load_recipe` also validates the options of tasks; use that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ernie2.config.overrides import apply_override, check_list
from ernie2.config.plain_yaml import MAX_CHARACTERS, parse_yaml, short_repr, to_plain_data
from ernie2.config.problems import explain, list_problems
from ernie2.config.settings import Recipe
from ernie2.errors import ConfigError, did_you_mean_file
from ernie2.formatting import quantity


def shipped_recipes() -> dict[str, str]:
    """Return the recipes shipped with the package: name → YAML text."""
    folder = resources.files("ernie2") / "recipes"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def read_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    check_tasks: Callable[[Mapping[str, Any]], Iterable[str]],
) -> Recipe:
    """Read a recipe file, a shipped recipe's name or a mapping, apply dotted overrides, and validate the result.

    `check_tasks` receives the recipe as plain values and returns problems with its tasks, which this package cannot
    import. Raises `ConfigError` listing all invalid keys, each with the closest valid key, and all invalid values.
    """
    values, where = _read_values(source)
    check_list(overrides, "overrides")
    for override in overrides:
        apply_override(values, override)
    problems: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += explain(error, Recipe, values)
    problems += check_tasks(values)
    if problems or recipe is None:
        listed = list_problems(problems)
        raise ConfigError(
            f"{_error_location(where, overrides, problems)}: {quantity(len(problems), 'problem')}:\n{listed}\n"
            "`ernie2 recipes demo-en` writes a recipe with every key explained."
        )
    return recipe


def _error_location(where: str, overrides: Sequence[str], problems: Sequence[str]) -> str:
    """Return the source of `problems` for messages: the overrides of their keys, the file, or both."""
    keys = {override: override.partition("=")[0] for override in overrides}
    wrong = [problem.partition(": ")[0] for problem in problems]
    matching = [
        override for override, key in keys.items() if any(_is_within(one, key) or _is_within(key, one) for one in wrong)
    ]
    named = f"override {', '.join(map(short_repr, matching))}"
    if not matching:
        return where
    alone = all(any(_is_within(one, keys[override]) for override in matching) for one in wrong)
    return named if alone else f"{where} with {named}"


def _is_within(key: str, outer: str) -> bool:
    return key == outer or key.startswith(f"{outer}.")


def _read_values(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(source, Mapping):
        return to_plain_data(source, "recipe"), "recipe"
    path = Path(source)
    shipped = shipped_recipes()
    if str(source) in shipped and not os.path.isfile(path):  # also False if the text is not a valid file name
        text, where = shipped[str(source)], f"recipe {source!r}"
    else:
        if os.path.isdir(path):
            raise ConfigError(f"{path} is a folder; a recipe is a YAML file.")
        if not os.path.isfile(path):
            raise ConfigError(
                f"there is no recipe file and no shipped recipe {short_repr(str(path))}."
                f"{_suggestion(str(source), [*_recipes_in(path.parent), *shipped])} "
                f"Shipped: {', '.join(sorted(shipped))}."
            )
        try:
            with path.open(encoding="utf-8") as file:
                text, where = file.read(MAX_CHARACTERS + 1), str(path)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise ConfigError(f"{where} contains no keys; start from `ernie2 recipes demo-en`.")
    return values, where


def _suggestion(source: str, known: Sequence[str]) -> str:
    """Return a suggestion for a recipe that does not exist."""
    if "=" in source:
        return " Put the recipe before the overrides, as in `demo-en KEY=VALUE`."
    return did_you_mean_file(source, known)


def _recipes_in(folder: Path) -> list[str]:
    try:
        return [str(file) for file in sorted(folder.iterdir()) if file.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return []
