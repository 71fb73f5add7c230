"""Texts without labels, from files and pipes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

import tiny_finetuning as tiny
from ernie2.errors import ConfigError, DataError
from ernie2.finetuning.tuned_folder import TunedFacts
from ernie2.finetuning.unlabelled import examples_from, examples_in, examples_of

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


def test_conll_files_are_sentences_for_a_model_that_tags(tmp_path: Path) -> None:
    file = tmp_path / "t.conll"
    file.write_text("w1\nw2\n\nw3\n")
    assert [one.tokens for one in examples_in(str(file), TAGS)] == [("w1", "w2"), ("w3",)]
    with pytest.raises(DataError, match="the model does not tag"):
        list(examples_in(str(file), ONE))
    plain = tmp_path / "t.txt"
    plain.write_text("w1 O\nw2 B-X\n\nw3 O\n")
    assert [one.tokens for one in examples_in(str(plain), TAGS)] == [("w1", "w2"), ("w3",)]
    header = tmp_path / "h.conll"
    header.write_text("pos\tword\nNN\tw1\n")
    assert [one.tokens for one in examples_in(str(header), TAGS, "word")] == [("w1",)]
    for content in ("w1\nw2\n\nw3\n", "w1 w2\n\nw3 w4\n"):  # tokens or texts
        plain.write_text(content)
        with pytest.raises(DataError, match=r"a token a line.*or a text a line. Call it .conll"):
            list(examples_in(str(plain), TAGS))
    plain.write_text("李白\n\n杜甫\n")
    assert [one.tokens for one in examples_in(str(plain), CHARACTERS)] == [("李", "白"), (), ("杜", "甫")]


def test_plain_files_are_lines_and_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("w1\n\nw2\n")
    assert [one.text for one in examples_in(str(file), ONE)] == ["w1", "", "w2"]
    with pytest.raises(DataError, match="not valid JSON"):
        list(examples_of(['{"text": '], ONE))


def test_a_byte_order_mark_or_leading_space_does_not_make_an_object_a_text(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"id": "x7", "text": "w1"}\r\n {"id": "x8", "text": "w2"}\n'
    (tmp_path / "t.jsonl").write_bytes(content)
    expected = [("x7", "w1"), ("x8", "w2")]
    assert [(one.id, one.text) for one in examples_from(BytesIO(content), ONE)] == expected
    assert [(one.id, one.text) for one in examples_of(content.decode().splitlines(), ONE)] == expected
    assert [(one.id, one.text) for one in examples_in(str(tmp_path / "t.jsonl"), ONE)] == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": null}', "the text in 'text' is null"),
        (b'{"text": NaN}', "the text in 'text' is NaN"),
        (b'{"text": ["a", "b"]}', "the text in 'text' is a list, not a string"),
        (b'{"text": {"a": 1}}', "the text in 'text' is an object"),
        (b'{"text": 5}', "the text in 'text' is a number"),
        (rb'{"text": "\ud83d"}', "half a character"),
        (b'{"txt": "a"}', r"no column 'text'.* There is: txt. Name the right ones with --text"),
        (b"a\xff", "byte 2: not UTF-8"),
        (b"a\0", "a NUL byte"),
    ],
)
def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path, line: bytes, said: str) -> None:
    with pytest.raises(DataError, match="standard input, line 2.*" + said):
        list(examples_from(BytesIO(b"good\n" + line), ONE))
    (tmp_path / "t.txt").write_bytes(b"good\n" + line)
    with pytest.raises(DataError, match="t.txt, line 2.*" + said):
        list(examples_in(str(tmp_path / "t.txt"), ONE))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": null}', "null stands where a list or text is expected"),
        (b'{"text": [null, 5]}', "a token in 'text' is null"),
    ],
)
def test_what_is_no_token_is_refused_with_its_line(line: bytes, said: str) -> None:
    with pytest.raises(DataError, match="standard input, line 1: " + said):
        list(examples_from(BytesIO(line), TAGS))


def test_half_a_character_in_a_line_of_python_is_refused() -> None:
    with pytest.raises(DataError, match=r"line 1: .*half a character"):
        list(examples_of(["a \ud83d"], ONE))
