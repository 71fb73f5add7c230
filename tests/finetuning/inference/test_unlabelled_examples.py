"""Texts without labels, from files and pipes."""

from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path

import pytest

import tiny_finetuning as tiny
from ernie2.errors import ConfigError, DataError
from ernie2.finetuning.finetuned_model import FinetunedConfig
from ernie2.finetuning.inference.unlabelled_examples import (
    examples_from_file,
    examples_from_lines,
    examples_from_stream,
)

PAIR = FinetunedConfig(
    head="classification", labels=("no", "yes"), settings=tiny.settings(), dataset="x", texts=("a", "b")
)
ONE = FinetunedConfig(head="classification", labels=("no", "yes"), settings=tiny.settings(), dataset="x")
TAGS = FinetunedConfig(head="tagging", labels=("O",), settings=tiny.settings(), dataset="x")
SPANS = FinetunedConfig(head="span", labels=(), settings=tiny.settings(), dataset="x", texts=("question", "context"))
CHARACTERS = FinetunedConfig(head="tagging", labels=("O",), settings=tiny.settings(), dataset="x", per_character=True)


def test_a_line_is_a_text_or_two_with_a_tab_or_an_object() -> None:
    one, other = examples_from_lines(["w1\tw2\n", '{"b": "second", "a": "first", "id": "x7"}\n'], PAIR)
    assert (one.id, one.text, one.pair) == ("0", "w1", "w2")
    assert (other.id, other.text, other.pair) == ("x7", "first", "second")


def test_an_empty_line_is_an_empty_text_so_that_predictions_match_lines() -> None:
    assert [one.text for one in examples_from_lines(["w1", "", "w2"], ONE)] == ["w1", "", "w2"]


def test_a_line_with_the_wrong_number_of_texts_is_refused_with_its_number() -> None:
    with pytest.raises(DataError, match=r"line 2: 1 text, but the model reads 2 \(a, b\)"):
        list(examples_from_lines(["w1\tw2", "w1"], PAIR))


@pytest.mark.parametrize("name", ["t.txt", "t.tsv", "t.csv"])
def test_an_empty_line_of_a_file_is_an_empty_text_too(tmp_path: Path, name: str) -> None:
    header = "" if name == "t.txt" else "text\n"
    (tmp_path / name).write_text(header + "w1\n\nw2\n")
    assert [(one.id, one.text) for one in examples_from_file(str(tmp_path / name), ONE)] == [
        ("0", "w1"),
        ("1", ""),
        ("2", "w2"),
    ]


def test_tables_are_read_by_the_columns_of_training_or_the_given_ones(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text("left\tright\nw1\tw2\n")
    with pytest.raises(DataError, match=r"there is no column 'a'.*left, right.*--text"):
        list(examples_from_file(str(file), PAIR))
    (one,) = examples_from_file(str(file), PAIR, "left,right")
    assert (one.text, one.pair) == ("w1", "w2")
    with pytest.raises(ConfigError, match="the model reads 2"):
        list(examples_from_file(str(file), PAIR, "left"))


def test_tokens_are_lists_or_split_at_spaces_or_into_characters_as_in_training(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": ["w1", "w 2"]}\n{"text": "w1 w2"}\n')
    assert [one.tokens for one in examples_from_file(str(file), TAGS)] == [("w1", "w 2"), ("w1", "w2")]
    assert [one.tokens for one in examples_from_lines(["李 白"], CHARACTERS)] == [("李", "白")]


def test_conll_files_are_sentences_for_a_model_that_tags(tmp_path: Path) -> None:
    file = tmp_path / "t.conll"
    file.write_text("w1\nw2\n\nw3\n")
    assert [one.tokens for one in examples_from_file(str(file), TAGS)] == [("w1", "w2"), ("w3",)]
    with pytest.raises(DataError, match="the model does not tag"):
        list(examples_from_file(str(file), ONE))
    plain = tmp_path / "t.txt"
    plain.write_text("w1 O\nw2 B-X\n\nw3 O\n")
    assert [one.tokens for one in examples_from_file(str(plain), TAGS)] == [("w1", "w2"), ("w3",)]
    header = tmp_path / "h.conll"
    header.write_text("pos\tword\nNN\tw1\n")
    assert [one.tokens for one in examples_from_file(str(header), TAGS, "word")] == [("w1",)]
    for content in ("w1\nw2\n\nw3\n", "w1 w2\n\nw3 w4\n"):  # tokens or texts
        plain.write_text(content)
        with pytest.raises(DataError, match=r"one token per line.*or one text per line. Rename it to .conll"):
            list(examples_from_file(str(plain), TAGS))
    plain.write_text("李白\n\n杜甫\n")
    assert [one.tokens for one in examples_from_file(str(plain), CHARACTERS)] == [("李", "白"), (), ("杜", "甫")]


def test_plain_files_are_lines_and_invalid_json_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("w1\n\nw2\n")
    assert [one.text for one in examples_from_file(str(file), ONE)] == ["w1", "", "w2"]
    with pytest.raises(DataError, match="not valid JSON"):
        list(examples_from_lines(['{"text": '], ONE))


def test_a_byte_order_mark_or_leading_space_does_not_make_an_object_a_text(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"id": "x7", "text": "w1"}\r\n {"id": "x8", "text": "w2"}\n'
    (tmp_path / "t.jsonl").write_bytes(content)
    expected = [("x7", "w1"), ("x8", "w2")]
    assert [(one.id, one.text) for one in examples_from_stream(BytesIO(content), ONE)] == expected
    assert [(one.id, one.text) for one in examples_from_lines(content.decode().splitlines(), ONE)] == expected
    assert [(one.id, one.text) for one in examples_from_file(str(tmp_path / "t.jsonl"), ONE)] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": null}', "the text in 'text' is null"),
        (b'{"text": NaN}', "the text in 'text' is NaN"),
        (b'{"text": ["a", "b"]}', "the text in 'text' is a list, not a string"),
        (b'{"text": {"a": 1}}', "the text in 'text' is an object"),
        (b'{"text": 5}', "the text in 'text' is a number"),
        (rb'{"text": "\ud83d"}', "half a character"),
        (b'{"txt": "a"}', r"no column 'text'.* Columns: txt. Name the right ones with --text"),
        (b"a\xff", "byte 2: not UTF-8"),
        (b"a\0", "a NUL byte"),
    ],
)
def test_values_that_are_not_text_are_refused_with_their_line(tmp_path: Path, line: bytes, message: str) -> None:
    with pytest.raises(DataError, match="standard input, line 2.*" + message):
        list(examples_from_stream(BytesIO(b"good\n" + line), ONE))
    (tmp_path / "t.txt").write_bytes(b"good\n" + line)
    with pytest.raises(DataError, match="t.txt, line 2.*" + message):
        list(examples_from_file(str(tmp_path / "t.txt"), ONE))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": null}', "null is not a list or text"),
        (b'{"text": [null, 5]}', "a token in 'text' is null"),
    ],
)
def test_values_that_are_not_tokens_are_refused_with_their_line(line: bytes, message: str) -> None:
    with pytest.raises(DataError, match="standard input, line 1: " + message):
        list(examples_from_stream(BytesIO(line), TAGS))


def test_half_a_surrogate_pair_in_a_string_is_refused() -> None:
    with pytest.raises(DataError, match=r"line 1: .*a lone surrogate"):
        list(examples_from_lines(["a \ud83d"], ONE))


@pytest.mark.parametrize(
    "content",
    [
        "w1 O\nw2 B-X\n\nw3 O\n",
        "w1\tO\nw2\tB-X\n\nw3\tO\n",
        "text\tlabel\nw1\tO\nw2\tB-X\n\nw3\tO\n",
        "-DOCSTART- O\n\nw1 O\nw2 O\n\nw3 O\n",
    ],
)
def test_conll_from_standard_input_is_read_as_sentences_by_a_model_that_tags(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [("w1", "w2"), ("w3",)]
    assert [one.tokens for one in examples_from_stream(BytesIO(content.encode()), TAGS)] == expected
    assert "note: standard input: read as CoNLL, one token per line" in capsys.readouterr().err
    assert [one.tokens for one in examples_from_stream(StringIO(content), TAGS)] == expected


@pytest.mark.parametrize("content", [b"w1 O\nw2 B-X\n\nw3 O\n", b"w1 O\nw2 B-X\n", b"w1\tO\nw2\tB\n\nw3\tO\n"])
def test_conll_from_standard_input_is_refused_by_a_model_that_does_not_tag(content: bytes) -> None:
    with pytest.raises(DataError, match="standard input has a token and a tag on each line, but the model does not"):
        list(examples_from_stream(BytesIO(content), ONE))


def test_short_texts_that_end_in_a_letter_are_not_conll() -> None:
    assert [one.text for one in examples_from_stream(BytesIO(b"Plan B\nVitamin E\n"), ONE)] == ["Plan B", "Vitamin E"]


def test_lines_that_could_be_tokens_or_texts_are_refused() -> None:
    with pytest.raises(DataError, match=r"standard input: .*Give it as a .conll file for the first"):
        list(examples_from_stream(BytesIO(b"w1\nw2\n\nw3\n"), TAGS))
    assert [one.tokens for one in examples_from_stream(BytesIO(b"w1 w2\nw3\n"), TAGS)] == [("w1", "w2"), ("w3",)]
    assert [one.text for one in examples_from_stream(BytesIO(b"a b\n\nc d\n"), ONE)] == ["a b", "", "c d"]


@pytest.mark.parametrize("name", ["pipe", "t.txt"])
def test_a_header_line_is_not_a_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def read(content: str, config: FinetunedConfig, text: str | None = None) -> list[tuple[str, str, str | None]]:
        (tmp_path / name).write_text(content)
        examples = (
            examples_from_stream(BytesIO(content.encode()), config, text)
            if name == "pipe"
            else examples_from_file(str(tmp_path / name), config, text)
        )
        return [(one.id, one.text, one.pair) for one in examples]

    assert read("text\nw1\n\n{w2\n", ONE) == [("0", "w1", None), ("1", "", None), ("2", "{w2", None)]
    assert "line 1: header line (text), skipped" in capsys.readouterr().err
    assert read("words\nw1\n", ONE, "words") == [("0", "w1", None)]
    assert read("b\ta\nw2\tw1\n", PAIR) == [("0", "w1", "w2")]
    assert read("id\ttext\tlabel\nx7\tw1\tno\n\nx8\tw2\tno\n", ONE) == [("x7", "w1", None), ("x8", "w2", None)]
    assert "header line (id, text, label), columns are read by these names" in capsys.readouterr().err
    with pytest.raises(DataError, match="line 2: 1 cell, but there are 3 columns"):
        read("id\ttext\tlabel\nw1\n", ONE)
    with pytest.raises(DataError, match="a column name occurs twice"):
        read("text\ttext\nw1\tw1\n", ONE)


def test_lines_from_python_are_always_texts() -> None:
    assert [one.text for one in examples_from_lines(["text", "w1"], ONE)] == ["text", "w1"]


@pytest.mark.parametrize(
    ("content", "config", "message"),
    [
        ("x7\tw1\tno\n", ONE, r"line 1: 3 columns, but the model reads 1 \(text\). Add a header line that names "
         r"text, or pass the file \(predict MODEL FILE.tsv\), or give one JSON object"),
        ("w1\n", PAIR, r"line 1: 1 text, but the model reads 2 \(a, b\). Separate them with tabs"),
        ('id,"text"\n1,w1\n', ONE, r"header line of a .csv file .*predict MODEL FILE.csv"),
        ('[{"text": "w1"}]\n', ONE, r"a JSON list. Pass the file \(predict MODEL FILE.json\)"),
        ('{\n "text": "w1"\n}\n', ONE, "JSON over several lines. Pass the file"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": []}]}]}', SPANS, "nested JSON as in SQuAD. Pass the"),
        ('{\n "data": [\n {"paragraphs": [', SPANS, "nested JSON as in SQuAD. Pass the file"),
    ],
)  # fmt: skip
def test_formats_other_than_one_text_per_line_are_refused_by_name(
    content: str, config: FinetunedConfig, message: str
) -> None:
    with pytest.raises(DataError, match="standard input, line 1: .*" + message if "line 1" not in message else message):
        list(examples_from_stream(BytesIO(content.encode()), config))


def test_text_in_brackets_and_objects_with_paragraphs_are_read() -> None:
    assert [one.text for one in examples_from_stream(BytesIO(b"[sighs] w1\n"), ONE)] == ["[sighs] w1"]
    assert [one.text for one in examples_from_stream(BytesIO(b'{"text": "w1", "paragraphs": 2}'), ONE)] == ["w1"]
