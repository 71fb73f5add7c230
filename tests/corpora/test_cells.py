"""Cells as texts and labels: missing values, normalisation and errors."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from ernie2.corpora.cells import (
    TRAILING_ZEROS,
    WHITE_SPACE,
    are_nli_labels,
    describe_changes,
    parse_json_cell,
    parse_label,
    parse_number,
    parse_table_cell,
    parse_text,
    parse_tokens,
    row_name,
)
from ernie2.errors import DataError


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("pos ", "pos"), (" very  good", "very good"), ("1", "1"), ("1.0", "1"), (1.0, "1"), (-1, "-1"),
        ("-1.00", "-1"), (True, "true"), (False, "false"), ("1.5", "1.5"), ("v1.0", "v1.0"), ("01", "01"), ("-", "-"),
        (None, None), (math.nan, None), ("", None), (" ", None), ("nan", None), ("NaN ", None), ("None", "None"),
    ],
)  # fmt: skip
def test_spellings_of_a_label_are_one_class(value: Any, label: str | None) -> None:
    assert parse_label(value, "y", "here") == label


def test_normalisations_are_counted() -> None:
    changes: Counter[str] = Counter()
    for value in ("pos ", "pos", 1.0, " 1.0", "2", None, " "):
        parse_label(value, "y", "here", changes)
    assert changes == {WHITE_SPACE: 2, TRAILING_ZEROS: 2}
    assert describe_changes("x.tsv", changes) == [
        "x.tsv: normalised white space in 2 labels",
        "x.tsv: removed .0, as in 1.0, from 2 labels",
    ]
    assert describe_changes("x.tsv", {WHITE_SPACE: 1}) == ["x.tsv: normalised white space in 1 label"]


@pytest.mark.parametrize("value", [0.5, math.inf, ["a"], {"a": 1}, "\ud800"])
def test_an_invalid_label_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"^here: "):
        parse_label(value, "y", "here")


@pytest.mark.parametrize(
    ("value", "kind"), [(5, "a number"), (["a"], "a list"), ({}, "an object"), (True, "true"), (b"a", "binary")]
)
def test_a_text_is_a_string_or_refused(value: Any, kind: str) -> None:
    with pytest.raises(DataError, match=f"here: the text in 'a' is {kind}, not a string"):
        parse_text(value, "a", "here")


def test_a_text_is_unchanged_and_a_blank_one_is_missing() -> None:
    assert parse_text(" two  words ", "a", "here") == " two  words "
    assert [parse_text(value, "a", "here") for value in (None, math.nan, "", "  ")] == [None] * 4
    with pytest.raises(DataError, match=r"here: the text contains \\ud83d, a lone surrogate"):
        parse_text("né \ud83d", "a", "here")


def test_tokens_are_strings() -> None:
    assert parse_tokens(["a", "né"], "t", "here") == ("a", "né")
    for token, kind in ((None, "null"), (5, "a number"), (["a"], "a list")):
        with pytest.raises(DataError, match=f"here: a token in 't' is {kind}, not a string"):
            parse_tokens(["a", token], "t", "here")


def test_a_dash_is_no_label_only_among_labels_of_inference() -> None:
    assert are_nli_labels(["-", "Entailment", "neutral"])
    assert are_nli_labels(["entailment", "not_entailment"])
    for labels in (["-", "+"], ["-"], [], ["entailment", "other"]):
        assert not are_nli_labels(labels)


def test_rows_are_named_by_the_first_column_with_a_value() -> None:
    assert row_name({"id": 7.0}, ("id",), 3) == "7"
    assert row_name({"id": None, "idx": "x"}, ("id", "idx"), 3) == "x"
    assert row_name({"id": math.nan}, ("id",), 3) == "3"


def test_cells_may_contain_numbers_lists_and_objects() -> None:
    assert [parse_number(value) for value in ("3.5", 2, "x", True, "nan", math.inf, None)] == [3.5, 2, *[None] * 5]
    assert [parse_number(value) for value in (" 2 ", "+1.", ".5", "-2e-3")] == [2.0, 1.0, 0.5, -0.002]
    assert [parse_number(value) for value in ("1_5", "１", "٣", "0x1", "", "1e", "inf")] == [None] * 7
    assert parse_table_cell('["a", 1]', "here") == ["a", 1]
    assert parse_table_cell("[a]", "here") == "[a]"
    assert parse_table_cell("{a", "here") == "{a"


@pytest.mark.parametrize(
    "cell",
    [
        "{'text': ['b'], 'answer_start': [0]}",
        "{'text': array(['b'], dtype=object), 'answer_start': array([0], dtype=int32)}",
        "[{'text': 'b'}]",
        "['a', 'b']",
        "['B-PER' 'O']",
        "[None, 'a']",
    ],
)
def test_lists_and_objects_in_python_syntax_are_refused(cell: str) -> None:
    with pytest.raises(DataError, match=r"^here: .* is a list or object in Python syntax, not in JSON. Save the table"):
        parse_table_cell(cell, "here")
    assert parse_json_cell(cell, "here") == cell  # valid as a text


@pytest.mark.parametrize("cell", ["[sic]", "[ 'tis ]", "{x}", "{'a'}", "['a", "[Nonesuch]"])
def test_texts_in_brackets_remain_texts(cell: str) -> None:
    assert parse_table_cell(cell, "here") == cell
