"""Tables on disk, a row a line: .tsv with a line of column names, or .jsonl with an object a line; also compressed.

In tsv nothing is quoted or escaped, so a cell can hold quotation marks but neither tab nor line feed; `write_rows`
turns white space into single spaces in every format, so that both say the same.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pydantic_core import from_json

from ernie2.corpora.files import file_format, list_files, read_lines
from ernie2.errors import DataError, StorageError, did_you_mean

READ = (".tsv", ".tsv.gz", ".tsv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst")
"""Extensions of tables that are read."""
WRITTEN = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
"""Extensions of tables that are written."""


def check_output(out: Path, inputs: Iterable[str] = ()) -> None:
    """Raises before any work is done for `out`: `DataError` for a name of no known format, a directory, or one of
    `inputs`; `StorageError` where its folder cannot be made or written to."""
    if not out.name.lower().endswith(WRITTEN):
        raise DataError(f"{out}: tables are written as {', '.join(WRITTEN)}; give the output a name that ends so.")
    if out.is_dir():
        raise DataError(f"{out} is a directory; name a file, such as {out.parent / ('rows' + WRITTEN[0])}.")
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in inputs):
        raise DataError(f"{out} is the input as well; give the output another name.")
    with storage(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_rows(out: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Writes a table whole or not at all, in place of one that is there; returns the number of rows.

    The same rows give the same bytes. Raises `StorageError` when it cannot be written.
    """
    aside = out.with_name(out.name + ".tmp")
    count = 0
    try:
        with storage(out), _opened(aside, compressed=out.name.lower().endswith(".gz")) as file:
            tsv = ".tsv" in out.name.lower()[-7:]
            if tsv:
                file.write("\t".join(columns) + "\n")
            for row in rows:
                cells = [" ".join(cell.split()) for cell in row]
                if tsv:
                    file.write("\t".join(cells) + "\n")
                else:
                    file.write(json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False) + "\n")
                count += 1
        with storage(out):
            os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    return count


def read_rows(path: str, columns: Sequence[str]) -> Iterator[tuple[str, list[Any]]]:
    """(place for messages, cells of `columns`) of every row of the tables that `path` (file, glob, URL) means.

    Cells are strings in tsv, whatever JSON says in jsonl. Raises `DataError`, naming file and line, for a table without
    one of the columns, a line of tsv with more or fewer cells than names, and a line that is no JSON object.
    """
    for file in list_files([path], READ):
        yield from (_tsv if ".tsv" in file_format(file, READ) else _jsonl)(file, columns)


@contextmanager
def storage(out: Path) -> Iterator[None]:
    """Turns an OSError inside into a `StorageError` about `out`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{out} cannot be written: {error.strerror or error}; nothing was changed. Free space or choose another "
            "place, then try again."
        ) from error


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
            f"{where}: there is no column {name!r}.{did_you_mean(name, names)} There is: {shown}. Name the column that "
            "is meant by the option."
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
