"""Dotted overrides, such as `train.peak_lr=3e-4`, for recipes and studies."""

from __future__ import annotations

from typing import Any

from ernie2.config.plain_yaml import DEEPEST, parse_yaml, shown
from ernie2.errors import ConfigError


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
