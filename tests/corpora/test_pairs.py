"""Tables of labelled pairs: documents, dropped rows by reason, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora import pairs
from ernie2.corpora.documents import Document, Drops, read_documents
from ernie2.corpora.pairs import read_pairs, sort_labels
from ernie2.errors import DataError


def read(path: Path, drops: Drops | None = None, columns: dict[str, str] | None = None, **settings: Any):
    corpus = CorpusSettings(path=str(path), pairs=columns or {}, **settings)
    return list(read_pairs(corpus, drops or Drops()))


def tsv(path: Path, *rows: tuple[str, ...]) -> Path:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_two_texts_of_a_row_are_two_paragraphs_and_the_first_is_the_group(tmp_path):
    header = ("label", "note", "sentence1", "sentence2")
    table = tsv(tmp_path / "a.tsv", header, ("so", "x", "It rained.", ' "Stay",\u3000 she  said.'), ("", "", "", ""))
    (pair,) = read(table)
    assert pair == Document("a#1", "It rained.", 'It rained.\n\n"Stay", she said.', label="so")
    assert [pair.text[start:end] for start, end in pair.paragraphs] == ["It rained.", '"Stay", she said.']


def test_the_recipe_names_the_columns_and_the_group(tmp_path):
    rows = [("doc", "query", "title", "clicked"), ("7", "q", "t", "0"), ("", "q", "u", "1")]
    named = {"a": "query", "b": "title", "label": "clicked"}
    found = read(tsv(tmp_path / "a.tsv", *rows), columns=named, group="doc")
    assert found == [Document("a#1", "7", "q\n\nt", label="0"), Document("a#2", "q", "q\n\nu", label="1")]


def test_rows_without_a_text_or_a_label_are_dropped_and_counted(tmp_path):
    rows = [("a", "b", "1"), ("", "b", "1"), ("a", " \u00a0", "1"), ("a", "c", " "), ("", "", "")]
    whole = [{"sentence1": a, "sentence2": b, "label": label} for a, b, label in rows]
    nulls = [{"sentence1": None, "sentence2": "b", "label": 1}, {"sentence1": "a", "sentence2": "b", "label": None}]
    drops = Drops()
    found = read(jsonl(tmp_path / "a.jsonl", *whole, *nulls), drops)
    assert [(pair.id, pair.text) for pair in found] == [("a#1", "a\n\nb")]
    assert drops.as_dict() == {"empty text": 4, "no label": 2}


def test_labels_of_every_type_become_names(tmp_path):
    values = [3, -1, True, False, 2.0, "  a  b ", "1.0", "1"]
    rows = [{"sentence1": str(i), "sentence2": "b", "label": value} for i, value in enumerate(values)]
    assert [pair.label for pair in read(jsonl(tmp_path / "a.jsonl", *rows))] == [
        *("3", "-1", "true", "false", "2", "a b", "1", "1")
    ]
    column = pa.array([0.0, None, float("nan"), 2.0])
    table = pa.table({"sentence1": ["a", "b", "c", "d"], "sentence2": list("wxyz"), "label": column})
    pq.write_table(table, tmp_path / "a.parquet")
    drops = Drops()
    assert [pair.label for pair in read(tmp_path / "a.parquet", drops)] == ["0", "2"]
    assert drops.as_dict() == {"no label": 2}


def test_every_format_gives_the_same_pairs(tmp_path):
    rows = [
        {"sentence1": f"Ünï {i}", "sentence2": f"文本 {i}", "label": str(i % 3), "group": str(i % 7)}
        for i in range(600)
    ]
    expected = [Document(f"a#{i + 1}", str(i % 7), f"Ünï {i}\n\n文本 {i}", label=str(i % 3)) for i in range(600)]
    tsv(tmp_path / "a.tsv", tuple(rows[0]), *(tuple(row.values()) for row in rows))
    numbers = [{**row, "label": int(row["label"]), "group": int(row["group"])} for row in rows]
    jsonl(tmp_path / "a.jsonl", *numbers)
    pq.write_table(pa.Table.from_pylist(numbers), tmp_path / "a.parquet", row_group_size=100)
    for name in ("a.tsv", "a.jsonl", "a.parquet"):
        assert read(tmp_path / name, group="group") == expected, name


NAMES = st.one_of(st.sampled_from(["", " "]), st.text().map("name {}".format))


@given(st.lists(st.tuples(st.text(), st.text(), NAMES), max_size=5))
def test_every_pair_has_two_paragraphs_that_are_its_texts(tmp_path_factory, rows):
    table = tmp_path_factory.mktemp("pairs") / "a.jsonl"
    names = ("sentence1", "sentence2", "label")
    jsonl_rows = [dict(zip(names, row, strict=True)) for row in [*rows, ("a", "b", "c")]]
    table.write_text("".join(json.dumps(row) + "\n" for row in jsonl_rows), encoding="utf-8")
    kept = [row for row in [*rows, ("a", "b", "c")] if all(cell.split() for cell in row)]
    found = read(table)
    assert [[pair.text[start:end] for start, end in pair.paragraphs] for pair in found] == [
        [" ".join(a.split()), " ".join(b.split())] for a, b, _ in kept
    ]
    assert [pair.label for pair in found] == [" ".join(label.split()) for *_, label in kept]


def test_labels_are_sorted_as_numbers_if_all_are_else_by_name():
    assert sort_labels(["10", "9", "-1", "9"]) == ["-1", "9", "10"]
    assert sort_labels({"10", "9", "b"}) == ["10", "9", "b"]
    assert sort_labels(["no", "yes"]) == ["no", "yes"]
    assert sort_labels([]) == []


def test_a_label_column_of_texts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MAX_LABELS", 3)
    rows = [("sentence1", "sentence2", "label"), *((f"a{i}", "b", f"l{i}") for i in range(4))]
    with pytest.raises(DataError, match=r"a.tsv, line 5: the column 'label' has more than 3 .*'l3'.*column of text"):
        read(tsv(tmp_path / "a.tsv", *rows))
    assert len(read(tsv(tmp_path / "a.tsv", *rows[:-1]))) == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"sentence1": 1, "sentence2": "b", "label": "c"}, "line 1: the text in 'sentence1' is a number, not a string"),
        ({"sentence1": "a", "sentence2": ["b"], "label": "c"}, "the text in 'sentence2' is a list"),
        (
            {"sentence1": "a", "sentence2": "b", "label": 0.5},
            "the label in 'label' is 0.5, a number with a fraction; .* whole number",
        ),
        ({"sentence1": "a", "sentence2": "b", "label": {}}, "the label in 'label' is an object"),
        ({"sentence1": "a", "sentence_2": "b", "label": 0}, r"no column 'sentence2'. Did you mean 'sentence_2'\?"),
        ({"sentence1": "", "sentence2": "b", "label": 0}, r"no labelled pairs \(empty text: 1\)"),
    ],
)
def test_an_invalid_row_is_named_with_its_location(row, said, tmp_path):
    with pytest.raises(DataError, match=said):
        read(jsonl(tmp_path / "a.jsonl", row))


def test_a_table_without_rows_and_files_of_texts_are_refused(tmp_path):
    with pytest.raises(DataError, match="its tables have no rows"):
        read(tsv(tmp_path / "a.tsv", ("sentence1", "sentence2", "label")))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match=r"'.txt' files are not supported here.*Known: .tsv"):
        read(tmp_path / "a.txt")


def test_the_error_for_a_table_of_documents_names_the_pairs_key(tmp_path):
    table = tsv(tmp_path / "a.tsv", ("sentence1", "sentence2", "label"))
    with pytest.raises(
        DataError, match=r"tsv: documents are not read from csv or tsv. For labelled pairs, set `pairs: "
    ):
        list(read_documents(CorpusSettings(path=str(table)), Drops()))


def test_a_dash_is_no_label_among_labels_of_inference_and_one_among_others(tmp_path):
    def labels_of(*labels, drops):
        rows = [{"sentence1": str(i), "sentence2": "b", "label": label} for i, label in enumerate(labels)]
        return [pair.label for pair in read(jsonl(tmp_path / "a.jsonl", *rows), drops)]

    drops = Drops()
    assert labels_of("-", "neutral", "-", "entailment", drops=drops) == ["neutral", "entailment"]
    assert drops.as_dict() == {"label -: annotators did not agree": 2}
    assert labels_of("-", "+", "-", drops=Drops()) == ["-", "+", "-"]


def test_nan_and_null_are_neither_text_nor_label(tmp_path):
    good = {"sentence1": "a", "sentence2": "b", "label": "nan"}
    table = tmp_path / "a.jsonl"
    nan = '{"sentence1": NaN, "sentence2": "b", "label": "x"}\n'
    table.write_text(nan + json.dumps(good) + "\n" + json.dumps(good | {"label": "y"}), encoding="utf-8")
    drops = Drops()
    assert [pair.label for pair in read(table, drops)] == ["y"]
    assert drops.as_dict() == {"empty text": 1, "no label": 1}
