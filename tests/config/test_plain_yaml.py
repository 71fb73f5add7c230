"""Users' YAML becomes plain data or is refused by key, quickly."""

from __future__ import annotations

import datetime
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.config.plain_yaml import parse_yaml, short_repr, to_plain_data
from ernie2.errors import ConfigError


def test_ordinary_yaml_is_read_as_it_always_was():
    text = "a: 1\nb: [x, 2.5, null, true]\nc: {d: '2001-01-01'}\nbase: &base {e: 1, f: 2}\nmore: {<<: *base, f: 3}\n"
    assert parse_yaml(text, "r") == {
        "a": 1,
        "b": ["x", 2.5, None, True],
        "c": {"d": "2001-01-01"},
        "base": {"e": 1, "f": 2},
        "more": {"e": 1, "f": 3},
    }
    assert parse_yaml("", "r") is None


@pytest.mark.parametrize("text", ["010", "-010", "0_1", "089", "1:30", "-1:30:00", "1:30.5"])
def test_numbers_that_only_old_yaml_reads_are_text(text: str):
    assert parse_yaml(f"a: {text}\n{text}: [{text}]", "r") == {"a": text, text: [text]}


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-10", -10), ("1_000", 1_000), ("0x1f", 31), ("00.5", 0.5)])
def test_other_numbers_are_numbers(text: str, number: float):
    assert parse_yaml(text, "r") == number


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join(['*' + last] * 9)}]\n" for last, key in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  b: 2001-99-99", r"r, line 2: a\.b: '2001-99-99' cannot be read as timestamp; put it in quotes"),
        ("a: !!int x", "line 1: a: 'x' cannot be read as int"),
        ("a: !!float x", "a: 'x' cannot be read as float"),
        ("a: !!bool x", "a: 'x' cannot be read as bool"),
        ("a: !!timestamp x", "a: 'x' cannot be read as timestamp"),
        ("a: 0x_", "a: '0x_' cannot be read as int"),
        ("a: 0b_", "a: '0b_' cannot be read as int"),
        ("a: " + "9" * 5_000, "a: '999.*cannot be read as int"),
        ("a: 0x" + "f" * 5_000, "a: the number is too large"),
        ("a: 2001-01-01", "a: 2001-01-01 is read as a date; put it in quotes"),
        ("a: " + "[" * 3_000 + "]" * 3_000, r"line 1: a\.0\.0 is nested more than 32 deep"),
        ("a: " + "{b: " * 3_000 + "1" + "}" * 3_000, r"a\.b\.b is nested more than 32 deep"),
        ("- " * 3_000 + "1", "is nested more than 32 deep"),
        ("a: .inf", r"a: must be a finite number \(got inf\)"),
        ("a: [1, -.inf]", r"a\.1: must be a finite number"),
        ("a: .nan", "a: must be a finite number"),
        ("a: 1.0e+999", "a: must be a finite number"),
        ('a: "x\\0y"', r"a: the text contains a control character, U\+0000"),
        ('a: "x\\e[31my"', r"a: the text contains a control character, U\+001B"),
        ('a: "x\\ud800y"', r"a: the text contains a lone surrogate, U\+D800"),
        ('"x\\0y": 1', r"x\\x00y: the text contains a control character"),
        ("a: 1\nb: {c: 1,\n d: 2, c: 3}", r"r, line 3: b\.c is given twice, first on line 2; remove one"),
        ("1: a\n0x1: b", "0x1 is given twice"),
        ("? [a]\n: 1", "a key must be text"),
        ("1: a", "1: a key must be text; put 1 in quotes"),
        ("yes: a", "a key must be text; put True in quotes"),
        ("a: !!binary aGk=", "a: tag 'tag:yaml.org,2002:binary' is not supported"),
        ("a: !!python/name:os.system x", "a: tag .* is not supported"),
        (BOMB, "e has more than 20,000 values"),
        ("a: &a [*a]", r"a\.0: an alias \(\*name\) is used inside its own anchor"),
        ("a: [1", "r is not valid YAML"),
        ("a: *b", "r is not valid YAML"),
        ("a" * 300_000, "longer than 262,144 characters"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_key_within_a_second(text, message):
    began = time.process_time()
    with pytest.raises(ConfigError, match=message) as refused:
        parse_yaml(text, "r")
    assert time.process_time() - began < 1
    assert len(str(refused.value)) < 700


def test_a_mapping_given_in_python_is_held_to_the_same():
    assert to_plain_data({"a": (1, [2.5, "x"])}, "recipe") == {"a": [1, [2.5, "x"]]}
    for value, message in (
        (float("nan"), "a.b: must be a finite number"),
        (10**400, "a.b: the number is too large"),
        (Path("x"), "a.b: .*is not plain YAML data .give a path as text"),
        (datetime.date(2001, 1, 1), "a.b: 2001-01-01 is read as a date"),
        ({1: 2}, r"a.b.1: a key must be text"),
    ):
        with pytest.raises(ConfigError, match=message):
            to_plain_data({"a": {"b": value}}, "recipe")
    endless: dict[str, object] = {}
    endless["a"] = endless
    with pytest.raises(ConfigError, match="nested more than 32 deep"):
        to_plain_data(endless, "recipe")


@given(st.text(alphabet="ab1.-:[]{}&*!|>'\"#%@?,\n \\<=\x00é", max_size=60))
def test_any_text_is_read_or_refused(text):
    with suppress(ConfigError):
        parse_yaml(text, "r")


def test_a_large_value_is_shown_on_one_line():
    endless: list[object] = []
    endless.append([endless] * 1_000)
    for value in ("x" * 10_000, list(range(10_000)), endless, {"a": "b" * 10_000}):
        assert len(short_repr(value)) <= 200
    assert short_repr("short") == "'short'"
