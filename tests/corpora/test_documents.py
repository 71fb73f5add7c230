from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora import documents
from ernie2.corpora.documents import Document, Drops, Span, corpus_files, read_documents
from ernie2.errors import DataError

SHARED = Path(os.environ.get("ERNIE2_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def read(path, drops=None, **settings) -> list[Document]:
    return list(read_documents(CorpusSettings(path=str(path), **settings), drops or Drops()))


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_in_txt_a_line_is_a_paragraph_and_a_blank_line_ends_the_document(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n first \r\nsecond\n \t\n\nthird 😀\n", encoding="utf-8")
    assert read(tmp_path / "a.txt") == [
        Document("a#1", "a#1", "first\n\nsecond"),
        Document("a#2", "a#2", "third 😀"),
    ]


def test_a_very_long_txt_document_is_split_into_parts_of_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_LONGEST_TXT_DOCUMENT", 4)
    (tmp_path / "a.txt").write_text("aaa\nbbb\nccc\n\nddd")
    assert read(tmp_path / "a.txt") == [
        Document("a#1", "a#1", "aaa\n\nbbb"),
        Document("a#1.2", "a#1", "ccc"),
        Document("a#2", "a#2", "ddd"),
    ]


def test_in_jsonl_a_blank_line_separates_paragraphs_and_a_line_feed_does_not(tmp_path):
    rows = (
        {"text": "\n one\ntwo \r\n \r\n\n\n\u3000three\n\n \n", "id": 7},
        {"text": " \n\n"},
        {"text": "x"},
    )
    drops = Drops()
    assert read(jsonl(tmp_path / "a.jsonl", *rows), drops) == [
        Document("7", "7", "one\ntwo\n\nthree"),
        Document("a#3", "a#3", "x"),
    ]
    assert drops.as_dict() == {"empty text": 1}


def test_every_format_gives_the_same_documents(tmp_path):
    rows = [
        {"id": f"d{i}", "text": f"Ünï {i}\n\n文本😀", "book": "b", "spans": [{"start": 0, "end": 3, "kind": "entity"}]}
        for i in range(600)
    ]
    plain = jsonl(tmp_path / "a.jsonl", *rows).read_bytes()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=100)
    expected = [Document(f"d{i}", "b", f"Ünï {i}\n\n文本😀", (Span(0, 3, "entity"),)) for i in range(600)]
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"):
        assert read(tmp_path / name, group="book") == expected, name


def test_field_names_are_configurable_and_several_files_are_read_in_order(tmp_path):
    jsonl(tmp_path / "b.jsonl", {"body": "B", "key": "k"})
    jsonl(tmp_path / "a.jsonl", {"body": "A", "spans": "not looked at", "marks": [[0, 1]]})
    settings = CorpusSettings(path=(f"{tmp_path}/b.jsonl", f"{tmp_path}/a*"), text="body", id="key", spans="marks")
    assert [file[-7:] for file in corpus_files(settings)] == ["b.jsonl", "a.jsonl"]
    assert list(read_documents(settings, Drops())) == [
        Document("k", "k", "B"),
        Document("a#1", "a#1", "A", (Span(0, 1, "user"),)),
    ]


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n\n{"text": "b"}')
    assert [document.text for document in read(tmp_path / "a.jsonl")] == ["a", "b"]


def test_spans_of_the_input_are_mapped_when_the_text_is_normalised(tmp_path):
    text = "  New York \n\n\n big\n apple \n"
    spans = [[2, 10, "entity"], [15, 18, "phrase"], [0, 27], [10, 15, "word"], [9, 12, "word"]]
    drops = Drops()
    (document,) = read(jsonl(tmp_path / "a.jsonl", {"text": text, "spans": spans}), drops)
    assert document.text == "New York\n\nbig\n apple"
    assert [(document.text[span.start : span.end], span.kind) for span in document.spans] == [
        ("New York", "entity"),
        ("big", "phrase"),
        ("New York\n\nbig\n apple", "user"),
        ("k", "word"),
    ]
    assert drops.as_dict() == {"span over white space": 1}


TEXTS = st.text(alphabet=st.sampled_from(list("ab \n\r\t\u3000\x85")), max_size=30)


@given(text=TEXTS | st.text(max_size=30), data=st.data())
def test_normalising_preserves_every_character_but_white_space_and_every_span(text, data):
    normal = documents._normalise(text)
    assert "".join(normal.split()) == "".join(text.split())
    assert documents._normalise(normal) == normal
    paragraphs = Document("", "", normal).paragraphs
    assert all(normal[a:b].strip() == normal[a:b] and (normal[a:b] or not normal) for a, b in paragraphs)
    if text:
        start = data.draw(st.integers(0, len(text) - 1))
        end = data.draw(st.integers(start + 1, len(text)))
        moved = documents._map_spans([Span(start, end, "user")], text)
        kept = "".join(normal[span.start : span.end] for span in moved)
        assert "".join(kept.split()) == "".join(text[start:end].split())
        if normal == text:
            assert not moved or moved == (Span(start, end, "user"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"text": "a"}\n{"text": "b',
            r"a.jsonl, line 2: not valid JSON: it is truncated \(EOF while parsing a string",
        ),
        (b'{"text": "a"} x', r"line 1: not valid JSON \(trailing characters at byte 15\)"),
        (b'["a"]', r"line 1: this line is a list, not an object"),
        (
            b'{"text": "a"}\n{"txet": "b", "id": 1}',
            r"line 2: .*no column 'text'. Did you mean 'txet'\? Columns: txet, id",
        ),
        (b'{"text": 3}', r"line 1: the field 'text' is a number, not a string"),
        (b'{"text": null}', r"line 1: the field 'text' is null, not a string"),
        (b'\n{"text": "\xe4\xb8"}', r"line 2, byte 11: not UTF-8 \(0xe4: "),
        (b'{"text": "\\ud83d"}', r"line 1: not valid JSON \(.*half a character"),
        (b'{"text": "a", "id": [1]}', r"line 1: the field 'id' is a list; it must be a string or a whole number"),
        (b'{"text": "abc", "spans": [[1, 4]]}', r"line 1: the span \[1, 4\] is outside the text, which has 3"),
        (b'{"text": "abc", "spans": [[2, 2]]}', r"outside the text"),
        (b'{"text": "abc", "spans": [[-1, 2]]}', r"outside the text"),
        (b'{"text": "abc", "spans": [[0, 2, "entty"]]}', r"Did you mean 'entity'\?"),
        (b'{"text": "abc", "spans": [[0, true]]}', r"'spans' must be a list of \[start, end, kind\]"),
        (b'{"text": "abc", "spans": [3]}', r"3 is not one"),
        (b'{"text": "abc", "spans": {"start": 1}}', r"must be a list of .*, not an object"),
    ],
)
def test_a_bad_jsonl_line_is_named(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_named_group_field_must_exist(tmp_path):
    with pytest.raises(DataError, match=r"line 1: there is no column 'book'. Did you mean 'books'\?"):
        read(jsonl(tmp_path / "a.jsonl", {"text": "a", "books": "b"}), group="book")


def test_text_that_is_not_utf8_is_named_by_line_and_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\nba\xffd\n")
    with pytest.raises(DataError, match=r"a.txt, line 2, byte 3: not UTF-8 \(0xff"):
        read(tmp_path / "a.txt")


def test_parquet_errors_name_the_column_the_row_and_the_file(tmp_path):
    pq.write_table(pa.table({"texts": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: there is no column 'text'. Did you mean 'texts'\?"):
        read(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet, row 2: the field 'text' is null"):
        read(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"c.parquet is not a valid parquet file"):
        read(tmp_path / "c.parquet")


def test_an_empty_corpus_is_an_error_that_says_why(tmp_path):
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"a.txt has no documents \(its files are empty\)"):
        read(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"has no documents \(empty text: 2\)"):
        read(jsonl(tmp_path / "a.jsonl", {"text": ""}, {"text": " "}))


def test_a_real_corpus_is_read_to_the_last_document():
    path = SHARED / "en/corpus/enwiki_sample.jsonl.gz"
    if not path.is_file():
        pytest.skip("the corpus is not here")
    found = read(path)
    assert len(found) == 2446
    assert found[0].id == "enwiki:290"
    assert len(found[0].paragraphs) >= 6


def test_a_file_whose_lines_end_in_cr_has_as_many_documents_as_with_line_feeds(tmp_path):
    text = "\n\n".join(f"Title {number}.\nText {number}." for number in range(30))
    for name, content in (
        ("lf.txt", text),
        ("cr.txt", text.replace("\n", "\r")),
        ("crlf.txt", text.replace("\n", "\r\n")),
    ):
        (tmp_path / name).write_bytes(content.encode())
        found = list(read_documents(CorpusSettings(path=str(tmp_path / name)), Drops()))
        assert [one.text for one in found] == [f"Title {number}.\n\nText {number}." for number in range(30)], name


def test_documents_may_be_a_json_list_or_arrow_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.ipc

    (tmp_path / "a.json").write_text('[{"text": "one", "id": 1.0}, {"text": "two"}]')
    table = pa.table({"text": ["one", "two"], "id": [1.0, float("nan")]})
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for name, ids in (("a.json", ["1", "a#2"]), ("b.arrow", ["1", "b#2"])):
        found = list(read_documents(CorpusSettings(path=str(tmp_path / name)), Drops()))
        assert [(one.id, one.text) for one in found] == [(ids[0], "one"), (ids[1], "two")]


def test_the_advice_for_a_missing_column_names_the_key_or_the_option(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", {"text": "a"})
    for name, advice in (("articles", r"Set corpora\.articles\.text\."), ("", r"Set --text\.")):
        with pytest.raises(DataError, match=rf"there is no column 'body'.* Columns: text\. {advice}$"):
            list(read_documents(CorpusSettings(path=str(file), text="body"), Drops(), name))
