"""Recipe files: YAML plus dotted overrides → a checked, frozen `Recipe`.

`load_recipe` reads a file (or the name of a shipped recipe), applies overrides such as `train.peak_lr=3e-4`, and
returns a `Recipe`, or raises one `ConfigError` that lists every wrong key and value together: the first pass checks the
recipe, the second each task's options by the task's own `Options` model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ernie2.errors import ConfigError, UnknownTask, did_you_mean
from ernie2.plain_yaml import DEEPEST, MOST_CHARACTERS, parse_yaml, plain, shown
from ernie2.plurals import counted
from ernie2.settings import Recipe
from ernie2.tasks import reading
from ernie2.tasks.base import Task, find


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with the package: name → YAML text."""
    folder = resources.files("ernie2") / "recipes"
    files = (entry for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file, a shipped recipe's name or a mapping, applies dotted overrides, and checks all of it.

    Raises `ConfigError` naming every wrong key (with the nearest right one) and every wrong value at once.
    """
    values, where = _read(source)
    for override in overrides:
        apply_override(values, override)
    problems: list[str] = []
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += explain(error, Recipe, values)
    problems += _task_problems(values)
    if problems or recipe is None:
        listed = list_problems(problems)
        raise ConfigError(
            f"{_blamed(where, overrides, problems)}: {counted(len(problems), 'problem')}:\n{listed}\n"
            "`ernie2 recipes NAME` writes a recipe in which every key is explained."
        )
    return recipe


def _blamed(where: str, overrides: Sequence[str], problems: Sequence[str]) -> str:
    """Return what to name as the place of `problems`: the overrides of their keys, the file, or both."""
    keys = {override: override.partition("=")[0] for override in overrides}
    wrong = [problem.partition(": ")[0] for problem in problems]
    found = [override for override, key in keys.items() if any(_within(one, key) or _within(key, one) for one in wrong)]
    named = f"override {', '.join(map(shown, found))}"
    if not found:
        return where
    alone = all(any(_within(one, keys[override]) for override in found) for one in wrong)
    return named if alone else f"{where} with {named}"


def _within(key: str, outer: str) -> bool:
    return key == outer or key.startswith(f"{outer}.")


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    if isinstance(source, Mapping):
        return plain(source, "recipe"), "recipe"
    path = Path(source)
    shipped = shipped_recipes()
    if str(source) in shipped and _kind_of_file(path) != "file":
        text, where = shipped[str(source)], f"recipe {source!r}"
    else:
        kind = _kind_of_file(path)
        if kind == "folder":
            raise ConfigError(f"{path} is a folder; a recipe is a YAML file.")
        if kind != "file":
            raise ConfigError(
                f"there is no recipe file {shown(str(path))} and no shipped recipe of that name."
                f"{did_you_mean(str(source), [*_recipes_in(path.parent), *shipped])} "
                f"Shipped: {', '.join(sorted(shipped))}."
            )
        try:
            with path.open(encoding="utf-8") as file:
                text, where = file.read(MOST_CHARACTERS + 1), str(path)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds no keys; start from `ernie2 recipes demo-en`.")
    return values, where


def _recipes_in(folder: Path) -> list[str]:
    """The YAML files of a folder, written as a user would name them."""
    try:
        return [str(file) for file in sorted(folder.iterdir()) if file.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return []


def _kind_of_file(path: Path) -> str | None:
    """ "file", "folder", or None for anything else, such as a name that can be none."""
    try:
        return "file" if path.is_file() else "folder" if path.is_dir() else None
    except (OSError, ValueError):
        return None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Sets one dotted key, as in `train.peak_lr=3e-4`, in nested `values`; raises `ConfigError` for another form."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {shown(override)} is not of the form key.subkey=value, as in train.peak_lr=3e-4.")
    *parents, last = key.split(".")
    if len(parents) >= DEEPEST:
        raise ConfigError(f"override {shown(override)}: no key is nested so deep.")
    place = values
    for parent in parents:
        if place.get(parent) is None:
            place[parent] = {}
        place = place[parent]
        if not isinstance(place, dict):
            raise ConfigError(f"override {shown(override)}: {parent!r} holds {shown(place)}, not keys.")
    place[last] = parse_yaml(text, f"override {shown(override)}", key)


def _task_problems(values: Mapping[str, Any]) -> list[str]:
    """The second pass: task names and task options, each checked by the task's own Options model."""
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


def list_problems(problems: Sequence[str]) -> str:
    """Problems as lines of a message; where there are many, the first of them and how many more there are."""
    lines = [f"  - {told if len(told) <= _LONGEST_PROBLEM else told[:_LONGEST_PROBLEM] + '…'}" for told in problems]
    more = [f"  and {len(lines) - _MOST_PROBLEMS} more"] if len(lines) > _MOST_PROBLEMS else []
    return "\n".join([*lines[:_MOST_PROBLEMS], *more])


_MOST_PROBLEMS, _LONGEST_PROBLEM = 30, 600
_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
}
"""What a value of the wrong kind should have been, by pydantic's type of error."""


def explain(error: ValidationError, model: type[BaseModel], values: Any) -> list[str]:
    """Every wrong key or value as one sentence: dotted key, what is wrong, the nearest right key.

    A value that may be of several kinds fails once for each of them: what is told is what is wrong with the kind it
    is of, or, where it is of none, all that it might have been.
    """
    places: dict[tuple[Any, ...], list[Any]] = {}
    for problem in error.errors():
        places.setdefault(_place(problem, values), []).append(problem)
    told = []
    for place, problems in places.items():
        of_right_kind = [problem for problem in problems if problem["type"] not in (*_KINDS, "literal_error")]
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if of_right_kind:
            told += [_sentence(problem, place, model) for problem in of_right_kind]
        elif not inside:
            told.append(_wrong_kind(problems, place))
    return list(dict.fromkeys(told))


def _place(problem: Any, values: Any) -> tuple[Any, ...]:
    """The keys of the recipe that lead to a problem, without the names pydantic gives to alternatives."""
    *parents, last = problem["loc"] or ("",)
    keys: list[Any] = []
    here = values
    for part in parents:
        if _holds(here, part):
            here = here[part]
            keys.append(part)
    return (*keys, last) if _holds(here, last) or problem["type"] == "missing" else tuple(keys)


def _holds(values: Any, key: Any) -> bool:
    if isinstance(values, Mapping):
        return key in values
    return isinstance(values, list | tuple) and isinstance(key, int) and key < len(values)


def _sentence(problem: Any, place: Sequence[Any], model: type[BaseModel]) -> str:
    key = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, place[:-1])
        return f"{key}: there is no such key.{did_you_mean(str(place[-1]), known)} Known here: {', '.join(known)}."
    if problem["type"] == "missing":
        return f"{key}: this key is required."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in _BOUNDS:
        message = _bound(problem)
    elif problem["type"] == "int_parsing_size":
        message = "the number is too large"
    return f"{key}: {message}{_got(problem)}" if key else message


_BOUNDS = {
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
}


def _bound(problem: Any) -> str:
    """ "must be at most 4,000,000"; a least value that only keeps zero out is "above 0" to who gave zero or less."""
    name, words = _BOUNDS[problem["type"]]
    bound, given = problem["ctx"][name], problem["input"]
    if name == "ge" and 0 < bound < 1 and isinstance(given, int | float) and given <= 0:
        return "must be above 0"
    return f"must be {words} {int(bound):,}" if bound == int(bound) else f"must be {words} {bound:g}"


def _wrong_kind(problems: Sequence[Any], place: Sequence[Any]) -> str:
    words = (_KINDS.get(problem["type"]) or problem["msg"].removeprefix("Input should be ") for problem in problems)
    kinds = list(dict.fromkeys(words))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    return f"{'.'.join(map(str, place))}: must be {' or '.join(kinds)}{_got(problems[0])}"


def _got(problem: Any) -> str:
    given = problem.get("input")
    return f" (got {shown(given)})" if isinstance(given, str | int | float | bool) else ""


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Names of the fields of the nested model at `location`."""
    here: Any = model
    for part in location:
        field = getattr(here, "model_fields", {}).get(part)
        nested = list(_models_in(field.annotation)) if field is not None else []
        here = nested[0] if nested else here
    return list(getattr(here, "model_fields", {}))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
