"""Tables of labelled text: .tsv, .csv, .jsonl and .parquet, with or without a line of column names, also compressed.

In .tsv (and .txt, which is read as such) nothing is quoted or escaped, as in the official files; in .csv quotes count.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from ernie2.corpora.files import file_format, open_file, read_lines, unreadable
from ernie2.errors import DataError, did_you_mean

_TEXT = (".tsv", ".txt", ".csv", ".jsonl", ".json")
TABLES = (*(f"{kind}{packed}" for kind in _TEXT for packed in ("", ".gz", ".zst")), ".parquet")
"""Extensions of files with labelled text."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column name, and its place for messages."""

    place: str
    cells: Mapping[str, Any]


def read_table(
    file: str,
    names: Collection[str] = (),
    without_header: Sequence[str] = (),
    dropped: list[str] | None = None,
) -> Iterator[Row]:
    """The rows of a table; cells are strings in .tsv and .csv, whatever the format says in .jsonl and .parquet.

    The first line of .tsv and .csv names the columns when it holds one of `names`, or when no `without_header` is
    given; else it is data and the columns are called as `without_header` says. Rows with more or fewer cells than
    columns are an error, or, where `dropped` is given, left out and their places appended to it. Raises `DataError`
    for a file that cannot be read as what its name says, naming the line.
    """
    kind = file_format(file, TABLES)
    if kind == ".parquet":
        return _parquet(file)
    if kind.startswith(".json"):
        return _jsonl(file)
    return _named(_cells(file, quoted=kind.startswith(".csv")), names, without_header, dropped)


def column(row: Row, alternatives: Sequence[str]) -> str:
    """The first of `alternatives` that `row` has. Raises `DataError` with the nearest name when it has none."""
    for name in alternatives:
        if name in row.cells:
            return name
    raise DataError(
        f"{row.place}: there is no column {' or '.join(map(repr, alternatives))}."
        f"{did_you_mean(alternatives[0], row.cells)} There is: {', '.join(row.cells) or 'none'}."
    )


def decoded(line: bytes, place: str) -> str:
    """The text of a line. Raises `DataError` for bytes that are not UTF-8."""
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}, byte {error.start + 1}: not UTF-8; save the file as UTF-8.") from error


def _cells(file: str, *, quoted: bool) -> Iterator[tuple[str, list[str]]]:
    lines = ((f"{file}, line {n}", decoded(line, f"{file}, line {n}")) for n, line in enumerate(read_lines(file), 1))
    if not quoted:
        yield from ((place, line.split("\t")) for place, line in lines if line)
        return
    reader = csv.reader(line + "\n" for _, line in lines)
    try:
        yield from ((f"{file}, line {reader.line_num}", cells) for cells in reader if cells)
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not valid CSV ({error}).") from error


def _named(
    lines: Iterator[tuple[str, list[str]]],
    names: Collection[str],
    without_header: Sequence[str],
    dropped: list[str] | None,
) -> Iterator[Row]:
    columns: Sequence[str] = ()
    for place, cells in lines:
        if not columns:
            if not without_header or set(cells) & set(names):
                columns = cells
                if len(set(columns)) < len(columns):
                    raise DataError(f"{place}: a column name stands twice; every column needs a name of its own.")
                continue
            if len(cells) != len(without_header):
                raise DataError(
                    f"{place}: the first line names none of the columns {', '.join(names)}, and has {len(cells)} cells "
                    f"where a file without names has {len(without_header)} ({', '.join(without_header)})."
                )
            columns = without_header
        if len(cells) == len(columns):
            yield Row(place, dict(zip(columns, cells, strict=True)))
        elif dropped is None:
            raise DataError(
                f"{place}: {len(cells)} cells, but there are {len(columns)} columns; every line needs as many."
            )
        else:
            dropped.append(place)


def _jsonl(file: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(file), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            cells = from_json(line, cache_strings="keys")
        except ValueError as error:
            raise DataError(f"{place}: not valid JSON ({error}); every line must be one whole object.") from error
        if not isinstance(cells, dict):
            raise DataError(f"{place}: this line is not an object; every line must be one.")
        yield Row(place, cells)


def _parquet(file: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with open_file(file) as raw:
            for batch in pq.ParquetFile(raw).iter_batches(batch_size=4096):
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"{file}, row {number}", cells)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error
