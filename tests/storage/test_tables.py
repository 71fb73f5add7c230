"""Tables of labelled text: four formats say the same, quotes are letters in .tsv, and faults name their line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from ernie2.errors import DataError
from ernie2.storage.tables import column, read_rows

ROWS = [{"a": 'He said "no".', "b": "1"}, {"a": "两个字", "b": "0"}]


def cells(file: Path, **options: object) -> list[dict[str, object]]:
    return [dict(row.cells) for row in read_rows(str(file), **options)]  # type: ignore[arg-type]


def test_the_same_rows_are_read_from_every_format(tmp_path: Path) -> None:
    tsv = "a\tb\n" + "".join(f"{row['a']}\t{row['b']}\n" for row in ROWS)
    (tmp_path / "x.tsv").write_text(tsv, encoding="utf-8")
    (tmp_path / "bom.tsv").write_bytes(b"\xef\xbb\xbf" + tsv.replace("\n", "\r\n").encode())
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(tsv.encode()))
    (tmp_path / "x.csv").write_text('a,b\n"He said ""no"".",1\n两个字,0\n', encoding="utf-8")
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    for name in ("x.tsv", "bom.tsv", "x.tsv.gz", "x.csv", "x.jsonl", "x.parquet"):
        assert cells(tmp_path / name) == ROWS, name


def test_a_quote_at_the_start_of_a_tsv_cell_swallows_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text('a\tb\n"open\t1\nnext\t0\n', encoding="utf-8")
    assert [row["a"] for row in cells(tmp_path / "x.tsv")] == ['"open', "next"]


def test_a_quoted_csv_cell_may_hold_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n"one\ntwo",1\n', encoding="utf-8")
    assert cells(tmp_path / "x.csv") == [{"a": "one\ntwo", "b": "1"}]


def test_a_first_line_without_a_known_name_is_data(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("one\ttwo\n", encoding="utf-8")
    options = {"names": ("a",), "without_header": ("b", "a")}
    assert cells(tmp_path / "x.tsv", **options) == [{"b": "one", "a": "two"}]
    with pytest.raises(DataError, match=r"line 1: the first line has none of the column names a, and has 2 cells"):
        cells(tmp_path / "x.tsv", names=("a",), without_header=("a", "b", "c"))


def test_ragged_rows_are_an_error_or_dropped_and_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n1\n1\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: 1 cell, but there are 2 columns"):
        cells(tmp_path / "x.tsv")
    dropped: list[str] = []
    assert cells(tmp_path / "x.tsv", dropped=dropped) == [{"a": "1", "b": "2"}]
    assert dropped == [f"{tmp_path}/x.tsv, line 2"]


def test_a_column_that_is_not_there_is_named_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("sentense\tb\n1\t2\n", encoding="utf-8")
    row = next(iter(read_rows(str(tmp_path / "x.tsv"))))
    with pytest.raises(DataError, match=r"no column 'sentence'. Did you mean 'sentense'\? Columns: sentense, b"):
        column(row, ("sentence",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", b"a\tb\n\xff\t1\n", "line 2, byte 1: not UTF-8"),
        ("x.jsonl", b'{"a": 1}\n{oops\n', "line 2: not valid JSON"),
        ("x.jsonl", b"[1]\n", "line 1: this line is a list, not an object"),
        ("x.parquet", b"no parquet", "not a valid parquet file"),
        ("x.xlsx", b"", "'.xlsx' files are not supported here"),
        ("x.tsv", b"a\ta\n1\t2\n", "a column name occurs twice"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        cells(tmp_path / name)


def test_arrow_files_and_streams_are_read_by_the_columns_that_are_needed(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", "y"] * 700, "b": list(range(1400)), "c": [None] * 1400})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "x.feather"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("x.arrow", "x.feather"):
        rows = list(read_rows(str(tmp_path / name), only=("b", "a", "d")))
        assert (len(rows), dict(rows[1].cells)) == (1400, {"a": "y", "b": 1}), name
        assert rows[1399].place == f"{tmp_path / name}, row 1400"
        with pytest.raises(DataError, match=rf"{name}: there is no column 'd'.* Columns: a, b, c"):
            column(rows[0], ("d",))
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:500])
        with pytest.raises(DataError, match="not a valid Arrow file"):
            list(read_rows(str(tmp_path / name)))


@pytest.mark.parametrize("content", ['[{"a": 1},\n {"a": 2}]', '{"a": 1}\n{"a": 2}', '\ufeff\n [{"a": 1}, {"a": 2}]'])
def test_a_json_file_is_a_list_or_an_object_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    assert cells(tmp_path / "x.json") == [{"a": 1}, {"a": 2}]


def test_a_list_of_anything_but_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('[{"a": 1}, null]')
    with pytest.raises(DataError, match="object 2: it is null, not an object"):
        cells(tmp_path / "x.json")


@pytest.mark.parametrize(("name", "content"), [("x.tsv", "a\tb\n1\t2\n"), ("x.csv", "a,b\n1,2\n")])
def test_a_wrong_header_raises_an_error_with_line_and_advice(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (row,) = read_rows(str(tmp_path / name))
    assert not row.typed
    with pytest.raises(DataError, match=rf"{name}, line 1: there is no column 'c'. Columns: a, b. Name it."):
        column(row, ("c",), "Name it.")


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        ("0\tneg\n1\tpos\n", True),
        ("a long text of more than forty characters\tneg\nb\tpos\n", True),
        ("good\tneg\nbad\tneg\n", True),
        ("sentence\tlabel\nbad\tneg\n", False),
    ],
)
def test_names_that_look_like_data_are_asked_for_a_header_line(tmp_path: Path, content: str, asked: bool) -> None:
    (tmp_path / "x.tsv").write_text(content)
    row = next(iter(read_rows(str(tmp_path / "x.tsv"))))
    with pytest.raises(DataError) as refused:
        column(row, ("text",), "Name it.")
    assert ("Is the header line missing? Name it." in str(refused.value)) == asked


def test_lines_of_a_table_may_end_in_cr(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(b"a\tb\r1\t2\r3\t4")
    assert cells(tmp_path / "x.tsv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_invalid_utf8_in_parquet_is_named_and_no_traceback(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")])
    pq.write_table(pa.table({"a": text}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"rows 1 to \d+, byte 2: not UTF-8"):
        cells(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("name", "header", "said"),
    [
        ("x.csv", "a;b", "separated by semicolons; use commas"),
        ("x.csv", "a\tb", "separated by tabs; call the file .tsv"),
        ("x.tsv", "a,b", "separated by commas; call the file .csv"),
    ],
)
def test_a_table_with_another_separator_raises_an_error(tmp_path: Path, name: str, header: str, said: str) -> None:
    (tmp_path / name).write_text(f"{header}\n1{header[1]}2\n")
    with pytest.raises(DataError, match=said):
        column(next(iter(read_rows(str(tmp_path / name)))), ("a",))


def test_a_value_that_python_cannot_hold_is_named_and_no_traceback(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([2**62], pa.timestamp("us"))}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x.parquet, rows 1 to \d+: a value cannot be read"):
        cells(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["x.tsv", "x.csv"])
def test_a_blank_line_is_an_empty_cell_where_there_is_one_column(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\ntext\r\nfoo\r\n\r\nbar\r\n")
    assert [(row.place[-6:], row.cells["text"]) for row in read_rows(str(tmp_path / name))] == [
        ("line 3", "foo"),
        ("line 4", ""),
        ("line 5", "bar"),
    ]
    mark = "\t" if name == "x.tsv" else ","
    (tmp_path / name).write_text(f"a{mark}b\n\n1{mark}2\n\n")
    assert cells(tmp_path / name) == [{"a": "1", "b": "2"}]


def test_a_key_that_occurs_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"y": "a"}\n{"y": "a", "y": "b"}\n')
    with pytest.raises(DataError, match=r"x.jsonl, line 2: the key 'y' occurs twice"):
        cells(tmp_path / "x.jsonl")
