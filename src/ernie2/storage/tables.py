"""Stream rows of .tsv, .csv, .jsonl, .json, .parquet and .arrow tables, each with its place for messages.

.txt is read as .tsv. Nothing is quoted in .tsv: a quotation mark is part of the text. .csv has quoted cells (csv_rows).
A blank line is an empty cell in a table of one column and is skipped otherwise. A .json file contains one object per
line or one list of objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from ernie2.errors import DataError, did_you_mean
from ernie2.formatting import quantity
from ernie2.storage.csv_rows import csv_rows
from ernie2.storage.files import json_type, json_value, open_file, read_error, read_lines, text_lines, utf8_error
from ernie2.storage.listing import file_format

_ROWS = 1024
_MAX_NAME_LENGTH = 40
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Header:
    """The place and names of a table's columns; `typed`: whether cells have types, so that "1" differs from 1."""

    place: str
    names: tuple[str, ...]
    typed: bool


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column name, and its place for messages; `header` is None for JSON objects, which have no
    header."""

    place: str
    cells: Mapping[str, Any]
    header: Header | None = None

    @property
    def typed(self) -> bool:
        """Whether cells have types; in .tsv and .csv every cell is a string."""
        return self.header is None or self.header.typed


def read_rows(
    file: str,
    names: Collection[str] = (),
    without_header: Sequence[str] = (),
    dropped: list[str] | None = None,
    *,
    only: Collection[str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a table; cells are strings in .tsv and .csv, typed values in other formats.

    The first line of .tsv and .csv is the header if it contains one of `names`, or if `without_header` is empty;
    otherwise it is data and the columns are named `without_header`. Rows with more or fewer cells than columns are an
    error, or, if `dropped` is given, are skipped and their places appended to it. `only`: the columns to read from
    .parquet and .arrow. Raises `DataError`, with the line or row, for content that does not match the extension.
    """
    kind = file_format(file, TABLE_FORMATS)
    if kind in _COLUMNAR:
        return _read_columnar(file, only, *_COLUMNAR[kind])
    if kind.startswith(".jsonl"):
        return _read_json_lines(file)
    if kind.startswith(".json"):
        return _read_json(file)
    lines = text_lines(file)
    cells = csv_rows(file, lines) if kind.startswith(".csv") else tsv_rows(file, lines)
    return named_rows(cells, names, without_header, dropped)


def column(row: Row, alternatives: Sequence[str], advice: str = "", rows: Sequence[Row] = ()) -> str:
    """Return the first of `alternatives` that is a column of `row`.

    If there is none, raises `DataError` at the header, with the most similar name and `advice`. If the column names
    look like data (a number, a long text, or a cell of `row` or `rows`), the message suggests a missing header line.
    """
    for name in alternatives:
        if name in row.cells:
            return name
    names = tuple(row.cells) if row.header is None else row.header.names
    if len(names) == 1 and (mark := next((mark for mark in ("\t", ";", ",") if mark in names[0]), "")):
        kind = {"\t": "tabs; call the file .tsv", ",": "commas; call the file .csv", ";": "semicolons; use commas"}[
            mark
        ]
        advice = f"Its cells seem to be separated by {kind}."
    elif row.header is not None and not row.typed and _look_like_data(names, (row, *rows)):
        advice = f"Is the header line missing? {advice}".rstrip()
    shown = ", ".join(names) if len(", ".join(names)) < 200 else f"{len(names)} others"
    raise DataError(
        f"{row.place if row.header is None else row.header.place}: there is no column "
        f"{' or '.join(map(repr, alternatives))}.{did_you_mean(alternatives[0], names)} Columns: {shown or 'none'}."
        f"{advice and ' ' + advice}"
    )


def _look_like_data(names: Sequence[str], rows: Sequence[Row]) -> bool:
    """Return whether column names look like the cells of a row."""
    if any(len(name) > _MAX_NAME_LENGTH or _NUMBER.fullmatch(name) for name in names):
        return True
    return any(name and row.cells.get(name) == name for row in rows for name in names)


def read_columns(file: str, columns: Sequence[str], advice: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield (place, cells of `columns`) of every row. Raises like `read_rows` and `column`."""
    for row in read_rows(file, only=columns):
        yield row.place, [row.cells[column(row, (name,), advice)] for name in columns]


def tsv_rows(file: str, lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of tab-separated lines; a blank line is a row only in a table of one column."""
    width = 0
    for number, line in enumerate(lines, 1):
        if line or width == 1:
            cells = line.split("\t")
            width = width or len(cells)
            yield f"{file}, line {number}", cells


def named_rows(
    rows: Iterator[tuple[str, list[str]]],
    names: Collection[str] = (),
    without_header: Sequence[str] = (),
    dropped: list[str] | None = None,
) -> Iterator[Row]:
    """Convert (place, cells) to rows by column name, like `read_rows`."""
    header: Header | None = None
    for place, cells in rows:
        if header is None:
            named = not without_header or bool(set(cells) & set(names))
            header = Header(place, tuple(cells if named else without_header), typed=False)
            if named:
                if len(set(cells)) < len(cells):
                    raise DataError(f"{place}: a column name occurs twice; rename one of the columns.")
                continue
            if len(cells) != len(without_header):
                raise DataError(
                    f"{place}: the first line has none of the column names {', '.join(names)}, and has "
                    f"{quantity(len(cells), 'cell')}; a file without a header has "
                    f"{len(without_header)} ({', '.join(without_header)})."
                )
        if len(cells) == len(header.names):
            yield Row(place, dict(zip(header.names, cells, strict=True)), header)
        elif dropped is None:
            raise DataError(
                f"{place}: {quantity(len(cells), 'cell')}, but there are {quantity(len(header.names), 'column')}; "
                "every line needs one cell per column."
            )
        else:
            dropped.append(place)


def _read_json_lines(file: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            place = f"{file}, line {number}"
            yield Row(place, _require_object(json_value(line, place), place, "this line"))


def _read_json(file: str) -> Iterator[Row]:
    """Yield rows of a list of objects if the file begins with [, otherwise of one object per line."""
    lines = read_lines(file)
    first = next((line for line in lines if line.strip()), b"")
    if not first.lstrip().startswith(b"["):
        yield from _read_json_lines(file)
        return
    content = json_value(b"\n".join(chain([first], lines)), file)
    if not isinstance(content, list):
        raise DataError(
            f"{file}: the file is {json_type(content)}; it must be a list of objects, or one object per line."
        )
    for number, one in enumerate(content, 1):
        place = f"{file}, object {number}"
        yield Row(place, _require_object(one, place, "it"))


def _require_object(value: Any, place: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f'{place}: {what} is {json_type(value)}, not an object; every row must be one, such as {{"text": "..."}}.'
        )
    return value


def _read_columnar(file: str, only: Collection[str] | None, kind: str, read: _Reader) -> Iterator[Row]:
    """Yield rows of a columnar file, with the columns of `only` that exist."""
    number = 0
    with open_file(file) as raw:
        try:
            names, batches = read(raw, only)
            header = Header(file, tuple(names), typed=True)
            if len(set(names)) < len(names):
                raise DataError(f"{file}: a column name occurs twice; rename one of the columns.")
            for batch in batches:
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"{file}, row {number}", cells, header)
        except UnicodeDecodeError as error:
            raise utf8_error(f"{file}, rows {number + 1} to {number + _ROWS}", error) from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise read_error(file, error) from error
            # pyarrow raises a plain OSError without errno for damaged content
            raise DataError(f"{file} is not a valid {kind} file ({error}). Get or write the file again.") from error
        except (ValueError, OverflowError) as error:  # such as a time beyond the year 9999
            raise DataError(
                f"{file}, rows {number + 1} to {number + _ROWS}: a value cannot be read ({error}); remove it."
            ) from error


def _open_parquet(raw: Any, only: Collection[str] | None) -> tuple[Sequence[str], Iterator[pa.RecordBatch]]:
    table = pq.ParquetFile(raw)
    names = table.schema_arrow.names
    return names, table.iter_batches(_ROWS, columns=_selected(names, only))


def _open_arrow(raw: Any, only: Collection[str] | None) -> tuple[Sequence[str], Iterator[pa.RecordBatch]]:
    """Open both forms of Arrow IPC: files, and streams as written by Hugging Face `datasets`."""
    try:
        table = pa.ipc.open_file(raw)
        batches = (table.get_batch(index) for index in range(table.num_record_batches))
    except pa.ArrowInvalid:
        raw.seek(0)
        table = pa.ipc.open_stream(raw)
        batches = iter(table)
    names = table.schema.names
    parts = (batch.slice(start, _ROWS) for batch in batches for start in range(0, batch.num_rows, _ROWS))
    chosen = _selected(names, only)
    return names, (batch if chosen is None else batch.select(chosen) for batch in parts)


def _selected(names: Sequence[str], only: Collection[str] | None) -> list[str] | None:
    return None if only is None else [name for name in names if name in only]


_Reader = Callable[[Any, Collection[str] | None], tuple[Sequence[str], Iterator[pa.RecordBatch]]]
"""(open file, columns to read or None for all) -> (names of all columns, batches of at most `_ROWS` rows)."""
_COLUMNAR: dict[str, tuple[str, _Reader]] = {
    ".parquet": ("parquet", _open_parquet),
    ".arrow": ("Arrow", _open_arrow),
    ".feather": ("Arrow", _open_arrow),
}
"""Extension -> name of the format for messages, and its reader."""
_PACKED = ("", ".gz", ".zst")
DOCUMENT_TABLE_FORMATS = (*(f"{kind}{packed}" for kind in (".jsonl", ".json") for packed in _PACKED), *_COLUMNAR)
"""Extensions of tables whose columns always have names; documents need one of these."""
TABLE_FORMATS = (
    *(f"{kind}{packed}" for kind in (".tsv", ".txt", ".csv") for packed in _PACKED),
    *DOCUMENT_TABLE_FORMATS,
)
"""Extensions of all tables, compared in lower case."""
