"""Convert pydantic's validation errors to messages with the dotted key, the problem, and the closest valid key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from ernie2.config.plain_yaml import short_repr
from ernie2.errors import did_you_mean


def list_problems(problems: Sequence[str]) -> str:
    """Format problems as a bulleted list, truncated to `_MAX_PROBLEMS` lines and the number of those left out."""
    lines = [f"  - {text if len(text) <= _MAX_LENGTH else text[:_MAX_LENGTH] + '…'}" for text in problems]
    more = [f"  and {len(lines) - _MAX_PROBLEMS} more"] if len(lines) > _MAX_PROBLEMS else []
    return "\n".join([*lines[:_MAX_PROBLEMS], *more])


_MAX_PROBLEMS, _MAX_LENGTH = 30, 600
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
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
"""pydantic's error type → the expected kind of value."""


def explain(error: ValidationError, model: type[BaseModel], values: Any) -> list[str]:
    """Return one sentence per invalid key or value: dotted key, problem, closest valid key.

    A value of a union type fails once for each member. The sentence reports the problem with the member whose kind
    matches the value; if none matches, it lists all members.
    """
    places: dict[tuple[Any, ...], list[Any]] = {}
    for problem in error.errors():
        places.setdefault(_place(problem, values), []).append(problem)
    messages = []
    for place, problems in places.items():
        of_right_kind = [problem for problem in problems if problem["type"] not in (*_KINDS, "literal_error")]
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if of_right_kind:
            messages += [_sentence(problem, place, model) for problem in of_right_kind]
        elif not inside:
            messages.append(_wrong_kind(problems, place))
    return list(dict.fromkeys(messages))


def _place(problem: Any, values: Any) -> tuple[Any, ...]:
    """Return the recipe keys that lead to a problem, without pydantic's names for members of a union."""
    *parents, last = problem["loc"] or ("",)
    keys: list[Any] = []
    here = values
    for part in parents:
        if _contains(here, part):
            here = here[part]
            keys.append(part)
    return (*keys, last) if _contains(here, last) or problem["type"] == "missing" else tuple(keys)


def _contains(values: Any, key: Any) -> bool:
    if isinstance(values, Mapping):
        return key in values
    return isinstance(values, list | tuple) and isinstance(key, int) and key < len(values)


def _sentence(problem: Any, place: Sequence[Any], model: type[BaseModel]) -> str:
    key = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        part = _model_at(model, place[:-1])
        if new := getattr(part, "RENAMED", {}).get(place[-1]):
            return f"{key}: this key is now {'.'.join([*map(str, place[:-1]), new])}."
        known = list(getattr(part, "model_fields", {}))
        return f"{key}: there is no such key.{did_you_mean(str(place[-1]), known)} Known here: {', '.join(known)}."
    if problem["type"] == "missing":
        if isinstance(place[-1], int):
            return f"{'.'.join(map(str, place[:-1]))}: value {place[-1] + 1} of the list is missing."
        return f"{key}: this key is required."
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in _BOUNDS:
        message = _bound(problem)
    elif problem["type"] == "int_parsing_size":
        message = "the number is too large"
    elif problem["type"] == "too_long":
        message = f"must have at most {problem['ctx']['max_length']} values"
    elif problem["type"] == "finite_number":
        message = "must be a finite number"
    return f"{key}: {message}{_given_value(problem)}" if key else message


_BOUNDS = {
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
}


def _bound(problem: Any) -> str:
    """Return "must be at most 4,000,000"; a minimum between 0 and 1 is "above 0" if the value is zero or less."""
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
    names = [
        name for problem in problems for name in re.findall("'([^']*)'", problem.get("ctx", {}).get("expected", ""))
    ]
    given = problems[0].get("input")
    hint = did_you_mean(given, names) if isinstance(given, str) else ""
    key = f"{'.'.join(map(str, place))}: " if place else ""
    return f"{key}must be {' or '.join(kinds)}{_given_value(problems[0])}{'.' if hint else ''}{hint}"


def _given_value(problem: Any) -> str:
    given = problem.get("input")
    return f" (got {short_repr(given)})" if isinstance(given, str | int | float | bool) else ""


def _model_at(model: type[BaseModel], location: Sequence[Any]) -> Any:
    here: Any = model
    for part in location:
        field = getattr(here, "model_fields", {}).get(part)
        nested = list(_models_in(field.annotation)) if field is not None else []
        here = nested[0] if nested else here
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
