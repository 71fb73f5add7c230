"""Cells as texts and labels: what counts as none, what is changed, and what is refused."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from ernie2.corpora.cells import (
    SPACES,
    WHOLE,
    change_notes,
    class_of,
    dash_is_no_label,
    json_in,
    name_in,
    number_of,
    spelled,
    text_of,
    tokens_of,
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
def test_a_label_is_one_class_however_it_is_written(value: Any, label: str | None) -> None:
    assert class_of(value, "y", "here") == label


def test_what_is_changed_is_counted() -> None:
    changes: Counter[str] = Counter()
    for value in ("pos ", "pos", 1.0, " 1.0", "2", None, " "):
        class_of(value, "y", "here", changes)
    assert changes == {SPACES: 2, WHOLE: 2}
    assert change_notes("x.tsv", changes) == [
        "x.tsv: normalised white space in 2 labels",
        "x.tsv: removed .0, as in 1.0, from 2 labels",
    ]
    assert change_notes("x.tsv", {SPACES: 1}) == ["x.tsv: normalised white space in 1 label"]


@pytest.mark.parametrize("value", [0.5, math.inf, ["a"], {"a": 1}, "\ud800"])
def test_what_is_no_label_is_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"^here: "):
        class_of(value, "y", "here")


@pytest.mark.parametrize(
    ("value", "kind"), [(5, "a number"), (["a"], "a list"), ({}, "an object"), (True, "true"), (b"a", "binary")]
)
def test_a_text_is_a_string_or_refused(value: Any, kind: str) -> None:
    with pytest.raises(DataError, match=f"here: the text in 'a' is {kind}, not a string"):
        text_of(value, "a", "here")


def test_a_text_stays_as_it_is_and_nothing_is_no_text() -> None:
    assert text_of(" two  words ", "a", "here") == " two  words "
    assert [text_of(value, "a", "here") for value in (None, math.nan, "", "  ")] == [None] * 4
    with pytest.raises(DataError, match=r"here: the text holds \\ud83d alone, half a character"):
        text_of("né \ud83d", "a", "here")


def test_tokens_are_strings() -> None:
    assert tokens_of(["a", "né"], "t", "here") == ("a", "né")
    for token, kind in ((None, "null"), (5, "a number"), (["a"], "a list")):
        with pytest.raises(DataError, match=f"here: a token in 't' is {kind}, not a string"):
            tokens_of(["a", token], "t", "here")


def test_a_dash_is_no_label_beside_those_of_inference_only() -> None:
    assert dash_is_no_label(["-", "Entailment", "neutral"])
    assert dash_is_no_label(["entailment", "not_entailment"])
    for labels in (["-", "+"], ["-"], [], ["entailment", "other"]):
        assert not dash_is_no_label(labels)


def test_rows_are_called_by_the_first_name_that_is_filled() -> None:
    assert name_in({"id": 7.0}, ("id",), 3) == "7"
    assert name_in({"id": None, "idx": "x"}, ("id", "idx"), 3) == "x"
    assert name_in({"id": math.nan}, ("id",), 3) == "3"


def test_cells_may_spell_numbers_lists_and_objects() -> None:
    assert [number_of(value) for value in ("3.5", 2, "x", True, "nan", math.inf, None)] == [3.5, 2, *[None] * 5]
    assert [number_of(value) for value in (" 2 ", "+1.", ".5", "-2e-3")] == [2.0, 1.0, 0.5, -0.002]
    assert [number_of(value) for value in ("1_5", "１", "٣", "0x1", "", "1e", "inf")] == [None] * 7
    assert spelled('["a", 1]', "here") == ["a", 1]
    assert spelled("[a]", "here") == "[a]"
    assert spelled("{a", "here") == "{a"


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
def test_lists_and_objects_in_the_spelling_of_python_are_refused(cell: str) -> None:
    with pytest.raises(
        DataError, match=r"^here: .* is Python's spelling of a list or object, not JSON. Save the table"
    ):
        spelled(cell, "here")
    assert json_in(cell, "here") == cell  # a text may be written so


@pytest.mark.parametrize("cell", ["[sic]", "[ 'tis ]", "{x}", "{'a'}", "['a", "[Nonesuch]"])
def test_texts_in_brackets_stay_texts(cell: str) -> None:
    assert spelled(cell, "here") == cell
