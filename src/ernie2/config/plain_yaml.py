"""Safe parsing of users' YAML into plain data, with limits on size and depth. Errors name the key.

Plain data are strings, integers, finite floats, booleans, null, lists, and mappings with string keys. All recipes and
overrides are parsed here.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from reprlib import Repr
from typing import Any

import yaml

from ernie2.errors import ConfigError
from ernie2.escaping import BIDI_CONTROLS

MAX_CHARACTERS = 262_144
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Limit on values and keys in one text; an alias counts each time it is used."""
MAX_INTEGER = 2**63 - 1

_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp"))
_YAML_1_1 = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""YAML 1.1 numbers that most readers would misread: octal 010 (8) and sexagesimal 1:30 (90)."""
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxdict = _SHORT.maxlist = 3


def parse_yaml(text: str, where: str, key: str = "") -> Any:
    """Parse `text` as YAML. `where` names it in messages; `key`: the dotted key whose value it is, if any.

    Raises `ConfigError` if the text is not YAML or not plain data, repeats a key, contains an alias inside itself, or
    exceeds the limits of this module.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{where} is longer than {MAX_CHARACTERS:,} characters; it is not a recipe.")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            loader.size(node, key)
            values = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {_truncate(str(error), 400)}") from error
    except _Rejected as error:
        raise ConfigError(f"{where}, line {error.line}: {error}.") from error
    return to_plain_data(values, where, key)


def to_plain_data(values: Any, where: str, key: str = "") -> Any:
    """Return a copy of `values` with tuples as lists. Raises `ConfigError` naming the first key that is not plain data.

    Rejected are strings with control characters or a lone surrogate, numbers that are not finite or exceed 64
    bits, dates, keys that are not strings, and any other type.
    """
    try:
        return _plain(values, key, 0)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from error


def short_repr(value: Any) -> str:
    """Return the `repr` of `value`, truncated to 200 characters."""
    return _truncate(_SHORT.repr(value), 200)


class _Rejected(Exception):
    """Raised for valid YAML that is not plain data, at position `mark`; `line` counts from 1."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.line = mark.line + 1


class _Loader(yaml.SafeLoader):
    """YAML loader that limits nesting to a depth safe for PyYAML's recursion, and validates all nodes first.

    It checks tags, unreadable values, repeated keys and aliases before it constructs any value.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._above: list[str] = []
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def compose_node(self, parent: Any, index: Any) -> Any:
        name = index.value if isinstance(index, yaml.ScalarNode) else "" if index is None else str(index)
        self._above.append(str(name))
        if len(self._above) > MAX_DEPTH:
            key = _truncate(".".join(name for name in self._above[:4] if name), 80)
            raise _Rejected(f"{key} is nested more than {MAX_DEPTH} deep", self.get_mark())
        node = super().compose_node(parent, index)
        self._above.pop()
        return node

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """Return the tag of an untagged node; numbers that match `_YAML_1_1` are strings."""
        tag = str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        number = tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        return "tag:yaml.org,2002:str" if number and _YAML_1_1.fullmatch(value) else tag

    def size(self, node: Any, key: str) -> int:
        """Return the number of values in `node`; an alias counts each time it is used. Raises `_Rejected`."""
        if id(node) in self._open:
            raise _Rejected(f"{key}: an alias (*name) is used inside its own anchor", node.start_mark)
        if id(node) in self._sizes:
            return self._sizes[id(node)]
        self._open.add(id(node))
        count, lines = 1, dict[Any, int]()
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                count += 1 + self.size(value, self._key(name, lines, key))
        elif isinstance(node, yaml.SequenceNode):
            count += sum(self.size(value, _join_key(key, number)) for number, value in enumerate(node.value))
        else:
            self._scalar(node, key)
        if count > MAX_VALUES:
            raise _Rejected(f"{key or 'it'} has more than {MAX_VALUES:,} values", node.start_mark)
        self._open.remove(id(node))
        self._sizes[id(node)] = count
        return count

    def _key(self, node: Any, lines: dict[Any, int], above: str) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _Rejected(f"{above or 'a mapping'}: a key must be text", node.start_mark)
        key = _join_key(above, node.value)
        if node.tag == "tag:yaml.org,2002:merge":
            return above
        value = self._scalar(node, key)
        if value in lines:
            raise _Rejected(f"{key} is given twice, first on line {lines[value]}; remove one", node.start_mark)
        lines[value] = node.start_mark.line + 1
        return key

    def _scalar(self, node: Any, key: str) -> Any:
        if node.tag not in _TAGS:
            raise _Rejected(f"{key}: tag {_truncate(node.tag, 40)!r} is not supported", node.start_mark)
        try:
            return self.construct_object(node)
        except yaml.YAMLError:
            raise
        except Exception as error:  # from PyYAML's constructors of numbers, dates and booleans
            kind = node.tag.rpartition(":")[2]
            message = (
                f"{key}: {short_repr(node.value)} cannot be read as {kind}; put it in quotes if it is meant as text"
            )
            raise _Rejected(message, node.start_mark) from error


def _plain(value: Any, key: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"{_truncate(key, 80)} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"{_join_key(key, name)}: a key must be text; put {short_repr(name)} in quotes")
            _check_text(name, _join_key(key, name))
        return {str(name): _plain(inner, _join_key(key, name), depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, _join_key(key, number), depth + 1) for number, inner in enumerate(value)]
    if isinstance(value, str):
        _check_text(value, key)
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"{key}: the number is too large")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key}: must be a finite number (got {value})")
        return float(value)
    if isinstance(value, date):
        raise ValueError(f"{key}: {value} is read as a date; put it in quotes if it is meant as text")
    raise ValueError(f"{key}: {short_repr(value)} is not plain YAML data (give a path as text)")


_UNPRINTABLE = {
    "Cc": "a control character",
    "Cs": "a lone surrogate",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "bidi": "a character that changes the writing direction",
}


def check_text(text: str, allowed: str = "\t\n\r") -> str:
    """Return `text`. Raises `ValueError` for a lone surrogate, and for control and bidi characters not in
    `allowed`."""
    for character in text:
        kind = "bidi" if character in BIDI_CONTROLS else unicodedata.category(character)
        if kind in _UNPRINTABLE and character not in allowed:
            raise ValueError(f"the text contains {_UNPRINTABLE[kind]}, U+{ord(character):04X}; remove it")
    return text


def _check_text(text: str, key: str) -> None:
    try:
        check_text(text, f"\t\n\r{BIDI_CONTROLS}")  # file names and columns may contain these
    except ValueError as error:
        raise ValueError(f"{ascii(key)[1:-1]}: {error}") from None


def _join_key(key: str, name: Any) -> str:
    return _truncate(f"{key}.{name}" if key else str(name), 200)


def _truncate(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
