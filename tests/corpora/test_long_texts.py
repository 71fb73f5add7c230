from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora import long_texts
from ernie2.corpora.cells import parse_text
from ernie2.corpora.documents import Document, Drops, Span, read_documents
from ernie2.corpora.long_texts import part_bounds
from ernie2.errors import DataError


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(long_texts, "LONGEST_TEXT", 20)
    monkeypatch.setattr(long_texts, "LONGEST_PART", 10)


def parts(text: str) -> list[str]:
    return [text[start:end] for start, end in part_bounds(text, "en")]


def read(file, drops=None) -> list[Document]:
    return list(read_documents(CorpusSettings(path=str(file)), drops or Drops()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b. " * 4, ["a b. a b. a b. a b. "]),  # 20 characters are not split
        ("One. Two three four five", ["One.", "Two three", "four five"]),
        ("aa\n\nbb cc dd ee ff gg", ["aa", "bb cc dd", "ee ff gg"]),
        ("a" * 25, ["a" * 10, "a" * 10, "a" * 5]),
        ("a" * 9 + "e\u0301" + "a" * 12, ["a" * 9, "e\u0301" + "a" * 8, "a" * 4]),
        ("我们走。" * 6, ["我们走。我们走。", "我们走。我们走。", "我们走。我们走。"]),
    ],
)
def test_a_long_text_is_split_at_blank_lines_else_sentences_else_spaces_else_between_letters(text, expected):
    assert parts(text) == expected


@settings(deadline=None)
@given(st.text("ab .\n\u0301。", max_size=200))
def test_parts_are_short_and_complete_except_white_space(text):
    found = parts(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert len(text) <= 20 or all(0 < len(part) <= 10 for part in found)


def test_a_long_line_of_txt_becomes_documents_of_one_group_and_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text("first\nOne two. Six ten. One six.\nlast\n\nb\n")
    drops = Drops()
    assert read(tmp_path / "a.txt", drops) == [
        Document("a#1", "a#1", "first"),
        Document("a#1.2", "a#1", "One two."),
        Document("a#1.3", "a#1", "Six ten."),
        Document("a#1.4", "a#1", "One six.\n\nlast"),
        Document("a#2", "a#2", "b"),
    ]
    assert (drops.cut, drops.as_dict()) == (1, {})


def test_a_long_text_in_json_loses_only_spans_across_a_cut(tmp_path):
    row = {"id": "x", "text": "One two. Six ten. One six.", "spans": [[4, 7], [4, 12], [9, 12, "entity"]]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    drops = Drops()
    assert read(tmp_path / "a.jsonl", drops) == [
        Document("x", "x", "One two.", (Span(4, 7, "user"),)),
        Document("x.2", "x", "Six ten.", (Span(0, 3, "entity"),)),
        Document("x.3", "x", "One six."),
    ]
    assert (drops.cut, drops.as_dict()) == (1, {"span across a cut of a long text": 1})


def test_a_long_text_of_labelled_data_is_refused_with_its_location():
    with pytest.raises(DataError, match=r"^own\.tsv, line 7: the text in 'a' has 21 characters; the maximum is 20\."):
        parse_text("x" * 21, "a", "own.tsv, line 7")
