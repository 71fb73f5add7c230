"""Tables on disk: .tsv with a line of column names, .jsonl with an object a line, both also compressed, and .parquet.

In tsv nothing is quoted or escaped, so a cell can hold quotation marks but neither tab nor line feed; `write_rows`
turns white space into single spaces in every format, so that both say the same.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import from_json

from ernie2.corpora.files import file_format, list_files, open_file, read_lines, unreadable
from ernie2.errors import DataError, did_you_mean
from ernie2.storage.atomic import staged_file, storage_errors

READ = (".tsv", ".tsv.gz", ".tsv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Extensions of tables that are read."""
WRITTEN = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
"""Extensions of tables that are written."""

_PARQUET_ROWS = 256


def check_output(out: Path, inputs: Iterable[str] = ()) -> None:
    """Raises before any work is done for `out`: `DataError` for a name of no known format, a directory, or one of
    `inputs`; `StorageError` where its folder cannot be made or written to."""
    if not out.name.lower().endswith(WRITTEN):
        raise DataError(f"{out}: tables are written as {', '.join(WRITTEN)}; give the output a name that ends so.")
    if out.is_dir():
        raise DataError(f"{out} is a directory; name a file, such as {out.parent / ('rows' + WRITTEN[0])}.")
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in inputs):
        raise DataError(f"{out} is the input as well; give the output another name.")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_rows(out: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Write a table atomically, in place of one that is there; return the number of rows.

    The same rows give the same bytes. Raises `StorageError`.
    """
    count = 0
    tsv = ".tsv" in out.name.lower()[-7:]
    with staged_file(out) as new, _opened(new, compressed=out.name.lower().endswith(".gz")) as file:
        if tsv:
            file.write("\t".join(columns) + "\n")
        for row in rows:
            cells = [" ".join(cell.split()) for cell in row]
            if tsv:
                file.write("\t".join(cells) + "\n")
            else:
                file.write(json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_rows(path: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """(place for messages, cells of `columns`) of every row of the tables that `path` (file, glob, URL) means.

    As `read_table`, of every file.
    """
    for file in list_files([path], READ):
        yield from read_table(file, columns)


def read_table(file: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """(place for messages, cells of `columns`) of every row of one table, streamed.

    Cells are strings in tsv, whatever JSON or the column's type says in jsonl and parquet. Raises `DataError`, naming
    file and line or row, for a table without one of the columns, a line of tsv with more or fewer cells than names, and
    a line that is no JSON object.
    """
    extension = file_format(file, READ)
    if extension == ".parquet":
        for where, row in parquet_rows(file, lambda names: [names[_position(name, names, file)] for name in columns]):
            yield where, [row[name] for name in columns]
        return
    yield from (_tsv if extension.startswith(".tsv") else _jsonl)(file, columns)


def parquet_rows(
    file: str, choose: Callable[[Sequence[str]], Iterable[str]]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place for messages, row) of every row of a parquet file, streamed; a row holds the columns that `choose` returns
    of the names there are.

    Raises `DataError` for a file that cannot be read, and lets through what `choose` raises.
    """
    number = 0
    with open_file(file) as raw:
        try:
            table = pq.ParquetFile(raw)
            chosen = list(dict.fromkeys(choose(table.schema_arrow.names)))
            for batch in table.iter_batches(_PARQUET_ROWS, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file}, rows {number + 1} to {number + _PARQUET_ROWS}, byte {error.start + 1}: not UTF-8 "
                f"(0x{error.object[error.start]:02x}: {error.reason}); save the file as UTF-8."
            ) from error
        except pa.ArrowInvalid as error:
            raise DataError(f"{file} is no sound parquet file ({error}). Get or write the file again.") from error
        except OSError as error:
            raise unreadable(file, error) from error


def _tsv(file: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    positions: list[int] = []
    width = 0
    for number, line in enumerate(read_lines(file), start=1):
        where = f"{file}, line {number}"
        try:
            cells = line.decode().rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}, byte {error.start + 1}: not UTF-8; save the file as UTF-8.") from error
        if not positions:
            positions, width = [_position(name, cells, where) for name in columns], len(cells)
        elif len(cells) == width:
            yield where, [cells[position] for position in positions]
        elif any(cells):
            raise DataError(
                f"{where}: {len(cells)} cells, but the first line names {width} columns; every line needs as many, "
                "with a tab between them."
            )


def _jsonl(file: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    for number, line in enumerate(read_lines(file), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = from_json(line, cache_strings="keys")
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON ({error}); every line must be one whole object.") from error
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: this line is not an object; every line must be one, with {', '.join(columns)}.")
        for name in columns:
            _position(name, list(row), where)
        yield where, [row[name] for name in columns]


def _position(name: str, names: Sequence[str], where: str) -> int:
    if name not in names:
        shown = ", ".join(names) if len(", ".join(names)) < 200 else f"{len(names)} others"
        raise DataError(
            f"{where}: there is no column {name!r}.{did_you_mean(name, names)} There is: {shown}. Say in the recipe "
            "or by the option which column is meant."
        )
    return names.index(name)


@contextmanager
def _opened(path: Path, *, compressed: bool) -> Iterator[TextIO]:
    """A text file for writing; compressed bytes hold neither name nor time."""
    with open(path, "wb") as raw:
        if not compressed:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as text:
                yield text
            return
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, io.TextIOWrapper(packed, encoding="utf-8") as text:
            yield text
