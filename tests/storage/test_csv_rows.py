"""CSV rows: equal to those of Python's reader, and a stray quote is an error at its line."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.errors import DataError
from ernie2.storage.csv_rows import csv_rows


def cells(text: str) -> list[list[str]]:
    return [row for _, row in csv_rows("x.csv", text.split("\n"))]


def table(*rows: str, count: int = 10) -> str:
    good = [f"film {number},{'pos' if number % 2 else 'neg'}" for number in range(count)]
    return "\n".join(["text,label", *good, *rows, *good])


CELL = st.text(st.sampled_from('ab,"\n é'), max_size=6)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=6), st.sampled_from([0, 1]))
def test_rows_written_by_pythons_writer_are_read_back(rows: list[list[str]], quoting: int) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    assert cells(file.getvalue()) == rows


def test_a_quote_inside_a_cell_without_quotes_is_a_letter() -> None:
    assert cells('a,b\nsays "no",1\n,') == [["a", "b"], ['says "no"', "1"], ["", ""]]


def test_a_place_is_the_line_where_the_row_begins() -> None:
    places = [place for place, _ in csv_rows("x.csv", ["a,b", '"one', 'two",1', "", "c,2"])]
    assert places == ["x.csv, line 1", "x.csv, line 2", "x.csv, line 5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table('"open,pos'), "line 12: a quote is opened but never closed"),
        (table('good,"open'), "line 12: a quote is opened but never closed"),
        (
            table('"open,pos', "a film", 'he says "no",neg'),
            "line 12: a quote is opened here, but in line 14 text follows",
        ),
        (table('"open,pos', 'another "end",neg'), "line 12: a quote is opened here, but in line 13 text follows"),
        (
            table('"open,pos', "fine,neg", 'he says no",neg'),
            "line 12: .* closes only in line 14, and the lines in between",
        ),
        (
            table('"open,pos', *["fine,neg"] * 9, '"begins so,neg'),
            "line 12: a quote is opened here, but in line 22 text",
        ),
        (table(r'"he says \"no\"",neg'), r"line 12: a quote is opened here, but text follows its closing quote"),
        (table('"two\nlines",pos', '"open,pos'), "line 14: a quote is opened but never closed"),
    ],
)
def test_a_stray_quote_is_refused_at_the_line_where_it_opens(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"x.csv, {message}.*[Dd]ouble a quotation mark"):
        cells(text)


@pytest.mark.parametrize("cell", ['"Dear all,\nthank you"', '"one\n\nthree"', '"a, b\nc, d\ne, f"', '"one\ntwo\n,"'])
def test_cells_of_several_lines_are_read(cell: str) -> None:
    parsed = cells(table(f"{cell},pos"))
    assert len(parsed) == 22
    assert parsed[11] == [cell.strip('"'), "pos"]
