"""Overrides: dotted `key.subkey=value` for recipes and studies, `key=value` for flat settings."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ernie2.config.base import SettingsModel
from ernie2.config.plain_yaml import MAX_DEPTH, parse_yaml, short_repr
from ernie2.config.problems import explain, list_problems
from ernie2.errors import ConfigError
from ernie2.formatting import quantity

Flat = TypeVar("Flat", bound=SettingsModel)
_UNDERSCORED_NUMBER = re.compile(r"[0-9]_[0-9]")
"""Digits with underscores, a number for Python and pydantic but not in data files."""


def check_list(given: Sequence[Any], name: str) -> None:
    """Raise `ConfigError` if `given` is a string instead of a list of strings; it would be read by characters."""
    if isinstance(given, str):
        raise ConfigError(f"{name}: pass a list of strings, [{short_repr(given)}], not a string.")


def apply_assignments(settings: Flat, assignments: Sequence[str]) -> Flat:
    """Return a copy of `settings` with `key=value` assignments applied; `none` and `null` mean None.

    Raises `ConfigError` listing all invalid keys, each with the closest valid key, and all invalid values.
    """
    check_list(assignments, "settings")
    values: dict[str, Any] = settings.model_dump()
    problems = []
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            problems.append(f"{short_repr(assignment)} is not a key=value")
        elif _UNDERSCORED_NUMBER.search(text):
            problems.append(f"{key}: {short_repr(text)} is not a number; write it without _")
        else:
            values[key] = None if text.lower() in ("none", "null") else text
    try:
        changed = type(settings).model_validate(values)
    except ValidationError as error:
        problems += explain(error, type(settings), values)
    if problems:
        raise ConfigError(f"settings: {quantity(len(problems), 'problem')}:\n{list_problems(problems)}")
    return changed


def as_override(key: str, value: object) -> str:
    """Return `key=value` with `value` quoted, so that it is not parsed as YAML."""
    return f"{key}={json.dumps(str(value), ensure_ascii=False)}"


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key, as in `train.peak_lr=3e-4`, in nested `values`.

    Raises `ConfigError` for any other form, and for a YAML comment, which would silently truncate the value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"override {short_repr(override)} is not of the form key.subkey=value, as in train.peak_lr=3e-4."
        )
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH:
        raise ConfigError(f"override {short_repr(override)}: no key is nested this deep.")
    section = values
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise ConfigError(f"override {short_repr(override)}: {parent!r} is {short_repr(section)}, it has no keys.")
    section[last] = parse_yaml(text, f"override {short_repr(override)}", key)
    if any("#" in text[one.end_mark.index : after.start_mark.index] for one, after in pairwise(yaml.scan(text))):
        raise ConfigError(
            f"override {short_repr(override)}: YAML reads the text after # as a comment. Remove it, or quote the "
            f"value: {shlex.quote(as_override(key, text.strip()))}"
        )


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"name": "a", "train": {"peak_lr": 0.1}} → {"name": "a", "train.peak_lr": 0.1}; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= {f"{key}.{inner}": one for inner, one in flatten(value).items()}
        else:
            flat[key] = value
    return flat
