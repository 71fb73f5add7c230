"""Tables: all formats say the same, are written whole or not at all, and faults are named with their place."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.errors import DataError, StorageError
from ernie2.storage.table_writing import OUTPUT_FORMATS, check_output, write_rows
from ernie2.storage.tables import read_columns

ROWS = [['"Quoted" at the start', "x,y"], ["两个 字", "a\tb\nc"], ["", "'"]]


@pytest.mark.parametrize("extension", OUTPUT_FORMATS)
def test_what_was_written_is_read_with_single_spaces(extension: str, tmp_path: Path) -> None:
    out = tmp_path / f"rows{extension}"
    assert write_rows(out, ("one", "two"), ROWS) == 3
    cells = [cells for _, cells in read_columns(str(out), ("two", "one"))]
    assert cells == [["x,y", '"Quoted" at the start'], ["a b c", "两个 字"], ["'", ""]]
    first = out.read_bytes()
    write_rows(out, ("one", "two"), ROWS)
    assert out.read_bytes() == first


@settings(deadline=None)  # a busy disk takes its time
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2), max_size=5))
def test_any_text_survives_but_for_its_white_space(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    expected = [[" ".join(cell.replace("\0", " ").split()) for cell in row] for row in rows]
    write_rows(folder / "rows.jsonl", ("a", "b"), rows)
    assert [cells for _, cells in read_columns(str(folder / "rows.jsonl"), ("a", "b"))] == expected
    write_rows(folder / "rows.tsv", ("a", "b"), rows)
    assert [cells for _, cells in read_columns(str(folder / "rows.tsv"), ("a", "b"))] == expected


def test_rows_that_fail_leave_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[list[str]]:
        yield ["1"]
        raise DataError("the input is broken.")

    (tmp_path / "rows.tsv").write_text("before", encoding="utf-8")
    with pytest.raises(DataError, match="broken"):
        write_rows(tmp_path / "rows.tsv", ("a",), failing())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("rows.tsv", "before")]


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"out.csv: tables are written as .tsv, .tsv.gz, .jsonl, .jsonl.gz"):
        check_output(tmp_path / "out.csv")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        check_output(tmp_path / "folder.tsv")
    (tmp_path / "log.tsv").write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match="is also an input file"):
        check_output(tmp_path / "log.tsv", [str(tmp_path / "log.tsv")])
    with pytest.raises(StorageError, match="nothing was changed"):
        check_output(tmp_path / "log.tsv" / "out.tsv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", b"one\ttow\n1\t2\n", r"line 1: there is no column 'two'. Did you mean 'tow'\?"),
        ("a.tsv", b"one\ttwo\n1\t2\t3\n", "line 2: 3 cells, but there are 2 columns"),
        ("a.tsv", b"one\ttwo\n1\t\xff\n", "line 2, byte 3: not UTF-8"),
        ("a.jsonl", b'{"one": 1, "two": 2}\n{"one": 1}\n', "line 2: there is no column 'two'"),
        ("a.jsonl", b'{"one": 1', "line 1: not valid JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1: this line is a list, not an object"),
        ("a.xlsx", b"one,two\n", "'.xlsx' files are not supported here"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_columns(str(tmp_path / name), ("one", "two")))


def test_compressed_tsv_with_windows_line_ends_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfone\ttwo\r\n1\t2\r\n\r\n"))
    assert list(read_columns(str(tmp_path / "a.tsv.gz"), ("two",))) == [(f"{tmp_path}/a.tsv.gz, line 2", ["2"])]


def test_parquet_is_read_by_its_columns_in_batches(tmp_path: Path) -> None:
    rows = [{"one": i, "other": [i], "two": None if i % 2 else f"文 {i}"} for i in range(600)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=500)
    result = list(read_columns(str(tmp_path / "a.parquet"), ("two", "one", "two")))
    assert [cells for _, cells in result] == [[row["two"], row["one"], row["two"]] for row in rows]
    assert result[599][0] == f"{tmp_path}/a.parquet, row 600"
    with pytest.raises(DataError, match=r"there is no column 'tow'. Did you mean 'two'\?"):
        list(read_columns(str(tmp_path / "a.parquet"), ("tow",)))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="not a valid parquet file"):
        list(read_columns(str(tmp_path / "a.parquet"), ("two",)))
