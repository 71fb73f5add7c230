"""Tables of labelled text: four formats say the same, quotes are letters in .tsv, and faults name their line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
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
    with pytest.raises(DataError, match=r"line 1: the first line names none of the columns a, and has 2 cells"):
        cells(tmp_path / "x.tsv", names=("a",), without_header=("a", "b", "c"))


def test_ragged_rows_are_an_error_or_dropped_and_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("a\tb\n1\n1\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2: 1 cells, but there are 2 columns"):
        cells(tmp_path / "x.tsv")
    dropped: list[str] = []
    assert cells(tmp_path / "x.tsv", dropped=dropped) == [{"a": "1", "b": "2"}]
    assert dropped == [f"{tmp_path}/x.tsv, line 2"]


def test_a_column_that_is_not_there_is_named_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("sentense\tb\n1\t2\n", encoding="utf-8")
    row = next(iter(read_rows(str(tmp_path / "x.tsv"))))
    with pytest.raises(DataError, match=r"no column 'sentence'. Did you mean 'sentense'\? There is: sentense, b"):
        column(row, ("sentence",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", b"a\tb\n\xff\t1\n", "line 2, byte 1: not UTF-8"),
        ("x.jsonl", b'{"a": 1}\n{oops\n', "line 2: not valid JSON"),
        ("x.jsonl", b"[1]\n", "line 1: this line is a list, not an object"),
        ("x.parquet", b"no parquet", "no sound parquet file"),
        ("x.xlsx", b"", "'.xlsx' files are not read here"),
        ("x.tsv", b"a\ta\n1\t2\n", "a column name stands twice"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        cells(tmp_path / name)
