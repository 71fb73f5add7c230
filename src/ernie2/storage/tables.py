"""Read rows of tables: .tsv, .csv, .jsonl, .json, .parquet and .arrow, streamed, with the place of every row.

In .tsv, and .txt, which is read as .tsv, nothing is quoted: a quotation mark is part of the text. In .csv quotes count
(csv_rows). A blank line is an empty cell where there is one column, and no row where there are several. A .json
file holds an object a line or one list of objects.
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
from ernie2.storage.csv_rows import csv_rows
from ernie2.storage.files import json_name, json_value, not_utf8, open_file, read_lines, text_lines, unreadable
from ernie2.storage.listing import file_format

_ROWS = 1024
_LONGEST_NAME = 40
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Header:
    """Where a table names its columns, which there are, and whether its cells have types, so that "1" is not 1."""

    place: str
    names: tuple[str, ...]
    typed: bool


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row by column name, and its place for messages. `header` is None where a row names its own
    cells, as JSON objects do."""

    place: str
    cells: Mapping[str, Any]
    header: Header | None = None

    @property
    def typed(self) -> bool:
        """Whether a cell that is a string was written as one; in .tsv and .csv every cell is a string."""
        return self.header is None or self.header.typed


def read_rows(
    file: str,
    names: Collection[str] = (),
    without_header: Sequence[str] = (),
    dropped: list[str] | None = None,
    *,
    only: Collection[str] | None = None,
) -> Iterator[Row]:
    """Yield the rows of a table; cells are strings in .tsv and .csv, whatever the format says elsewhere.

    The first line of .tsv and .csv names the columns when it holds one of `names`, or when no `without_header` is
    given; else it is data and the columns are called as `without_header` says. Rows with more or fewer cells than
    columns are an error, or, where `dropped` is given, left out and their places appended to it. `only`: the columns
    that are needed, so that others of .parquet and .arrow are not read. Raises `DataError`, naming line or row, for
    what cannot be read as what its name says.
    """
    kind = file_format(file, TABLES)
    if kind in _COLUMNAR:
        return _columnar(file, only, *_COLUMNAR[kind])
    if kind.startswith(".jsonl"):
        return _json_lines(file)
    if kind.startswith(".json"):
        return _json(file)
    lines = text_lines(file)
    cells = csv_rows(file, lines) if kind.startswith(".csv") else tsv_rows(file, lines)
    return named_rows(cells, names, without_header, dropped)


def column(row: Row, alternatives: Sequence[str], advice: str = "", rows: Sequence[Row] = ()) -> str:
    """Return the first of `alternatives` that `row` has.

    Raises `DataError` with the nearest name and `advice` when it has none, at the line that names the columns. Where
    the names look like data (a number, long, or what a cell of `row` or `rows` holds), it asks for the header line.
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
    elif row.header is not None and not row.typed and _are_data(names, (row, *rows)):
        advice = f"Is the header line missing? {advice}".rstrip()
    shown = ", ".join(names) if len(", ".join(names)) < 200 else f"{len(names)} others"
    raise DataError(
        f"{row.place if row.header is None else row.header.place}: there is no column "
        f"{' or '.join(map(repr, alternatives))}.{did_you_mean(alternatives[0], names)} There is: {shown or 'none'}."
        f"{advice and ' ' + advice}"
    )


def _are_data(names: Sequence[str], rows: Sequence[Row]) -> bool:
    """Whether names of columns look like the cells of a row."""
    if any(len(name) > _LONGEST_NAME or _NUMBER.fullmatch(name) for name in names):
        return True
    return any(name and row.cells.get(name) == name for row in rows for name in names)


def read_columns(file: str, columns: Sequence[str], advice: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yield (place, cells of `columns`) of every row. Raises as `read_rows` and `column` do."""
    for row in read_rows(file, only=columns):
        yield row.place, [row.cells[column(row, (name,), advice)] for name in columns]


def tsv_rows(file: str, lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of lines that tabs part; a blank one is a row where there is one column only."""
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
    """Yield rows of (place, cells) by the names of their columns, as `read_rows` does."""
    header: Header | None = None
    for place, cells in rows:
        if header is None:
            named = not without_header or bool(set(cells) & set(names))
            header = Header(place, tuple(cells if named else without_header), typed=False)
            if named:
                if len(set(cells)) < len(cells):
                    raise DataError(f"{place}: a column name stands twice; every column needs a name of its own.")
                continue
            if len(cells) != len(without_header):
                raise DataError(
                    f"{place}: the first line names none of the columns {', '.join(names)}, and has {len(cells)} cells "
                    f"where a file without names has {len(without_header)} ({', '.join(without_header)})."
                )
        if len(cells) == len(header.names):
            yield Row(place, dict(zip(header.names, cells, strict=True)), header)
        elif dropped is None:
            raise DataError(
                f"{place}: {len(cells)} cells, but there are {len(header.names)} columns; every line needs as many."
            )
        else:
            dropped.append(place)


def _json_lines(file: str) -> Iterator[Row]:
    for number, line in enumerate(read_lines(file), 1):
        if line.strip():
            place = f"{file}, line {number}"
            yield Row(place, _object(json_value(line, place), place, "this line"))


def _json(file: str) -> Iterator[Row]:
    """Rows of a list of objects, where the file begins with [; else of an object a line."""
    lines = read_lines(file)
    first = next((line for line in lines if line.strip()), b"")
    if not first.lstrip().startswith(b"["):
        yield from _json_lines(file)
        return
    content = json_value(b"\n".join(chain([first], lines)), file)
    if not isinstance(content, list):
        raise DataError(f"{file}: the file is {json_name(content)}; it must be a list of objects or an object a line.")
    for number, one in enumerate(content, 1):
        place = f"{file}, object {number}"
        yield Row(place, _object(one, place, "it"))


def _object(value: Any, place: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f'{place}: {what} is {json_name(value)}, not an object; every row must be one, such as {{"text": "..."}}.'
        )
    return value


def _columnar(file: str, only: Collection[str] | None, kind: str, read: _Reader) -> Iterator[Row]:
    """Rows of a file of columns, with `only` the columns that are asked for and there."""
    number = 0
    with open_file(file) as raw:
        try:
            names, batches = read(raw, only)
            header = Header(file, tuple(names), typed=True)
            if len(set(names)) < len(names):
                raise DataError(f"{file}: a column name stands twice; every column needs a name of its own.")
            for batch in batches:
                for cells in batch.to_pylist():
                    number += 1
                    yield Row(f"{file}, row {number}", cells, header)
        except UnicodeDecodeError as error:
            raise not_utf8(f"{file}, rows {number + 1} to {number + _ROWS}", error) from error
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
                raise unreadable(file, error) from error
            # a plain OSError without a number is how pyarrow says that the content is damaged
            raise DataError(f"{file} is not a valid {kind} file ({error}). Get or write the file again.") from error
        except (ValueError, OverflowError) as error:  # such as a time beyond the year 9999
            raise DataError(
                f"{file}, rows {number + 1} to {number + _ROWS}: a value cannot be read ({error}); take it out."
            ) from error


def _parquet(raw: Any, only: Collection[str] | None) -> tuple[Sequence[str], Iterator[pa.RecordBatch]]:
    table = pq.ParquetFile(raw)
    names = table.schema_arrow.names
    return names, table.iter_batches(_ROWS, columns=_chosen(names, only))


def _arrow(raw: Any, only: Collection[str] | None) -> tuple[Sequence[str], Iterator[pa.RecordBatch]]:
    """Both forms of Arrow's IPC: files, and streams, as the package `datasets` writes them."""
    try:
        table = pa.ipc.open_file(raw)
        whole = (table.get_batch(index) for index in range(table.num_record_batches))
    except pa.ArrowInvalid:
        raw.seek(0)
        table = pa.ipc.open_stream(raw)
        whole = iter(table)
    names = table.schema.names
    parts = (batch.slice(start, _ROWS) for batch in whole for start in range(0, batch.num_rows, _ROWS))
    chosen = _chosen(names, only)
    return names, (batch if chosen is None else batch.select(chosen) for batch in parts)


def _chosen(names: Sequence[str], only: Collection[str] | None) -> list[str] | None:
    return None if only is None else [name for name in names if name in only]


_Reader = Callable[[Any, Collection[str] | None], tuple[Sequence[str], Iterator[pa.RecordBatch]]]
"""An open file and the columns asked for, None: all -> the names of its columns, and its rows, `_ROWS` at a time."""
_COLUMNAR: dict[str, tuple[str, _Reader]] = {
    ".parquet": ("parquet", _parquet),
    ".arrow": ("Arrow", _arrow),
    ".feather": ("Arrow", _arrow),
}
"""Extension -> what messages call the format, and its reader."""
_PACKED = ("", ".gz", ".zst")
NAMED_TABLES = (*(f"{kind}{packed}" for kind in (".jsonl", ".json") for packed in _PACKED), *_COLUMNAR)
"""Extensions of tables that say of every cell which column it is in: those of documents."""
TABLES = (*(f"{kind}{packed}" for kind in (".tsv", ".txt", ".csv") for packed in _PACKED), *NAMED_TABLES)
"""Extensions of tables, in any case."""
