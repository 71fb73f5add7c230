"""Texts without labels, from files and pipes."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_finetuning as tiny
from ernie2.errors import ConfigError, DataError
from ernie2.finetuning.tuned_folder import TunedFacts
from ernie2.finetuning.unlabelled import examples_in, examples_of

PAIR = TunedFacts("classification", ("no", "yes"), tiny.settings(), "x", ("a", "b"))
ONE = TunedFacts("classification", ("no", "yes"), tiny.settings(), "x")
TAGS = TunedFacts("tagging", ("O",), tiny.settings(), "x")
CHARACTERS = TunedFacts("tagging", ("O",), tiny.settings(), "x", per_character=True)


def test_a_line_is_a_text_two_with_a_tab_or_an_object() -> None:
    one, other = examples_of(["w1\tw2\n", '{"b": "second", "a": "first", "id": "x7"}\n'], PAIR)
    assert (one.id, one.text, one.pair) == ("0", "w1", "w2")
    assert (other.id, other.text, other.pair) == ("x7", "first", "second")


def test_an_empty_line_is_an_empty_text_so_that_answers_stay_in_step() -> None:
    assert [one.text for one in examples_of(["w1", "", "w2"], ONE)] == ["w1", "", "w2"]


def test_a_line_with_the_wrong_number_of_texts_is_told_with_its_place() -> None:
    with pytest.raises(DataError, match=r"line 2: 1 texts, but the model reads 2 \(a, b\)"):
        list(examples_of(["w1\tw2", "w1"], PAIR))


def test_tables_are_read_by_the_columns_of_training_or_those_that_are_named(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text("left\tright\nw1\tw2\n")
    with pytest.raises(DataError, match=r"there is no column 'a'.*left, right.*--text"):
        list(examples_in(str(file), PAIR))
    (one,) = examples_in(str(file), PAIR, "left,right")
    assert (one.text, one.pair) == ("w1", "w2")
    with pytest.raises(ConfigError, match="the model reads 2"):
        list(examples_in(str(file), PAIR, "left"))


def test_tokens_come_as_lists_by_spaces_or_by_character_as_in_training(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": ["w1", "w 2"]}\n{"text": "w1 w2"}\n')
    assert [one.tokens for one in examples_in(str(file), TAGS)] == [("w1", "w 2"), ("w1", "w2")]
    assert [one.tokens for one in examples_of(["李 白"], CHARACTERS)] == [("李", "白")]


def test_plain_files_are_lines_and_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("w1\n\nw2\n")
    assert [one.text for one in examples_in(str(file), ONE)] == ["w1", "", "w2"]
    with pytest.raises(DataError, match="not valid JSON"):
        list(examples_of(['{"text": '], ONE))
