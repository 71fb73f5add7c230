"""Write tables: .tsv with a line of column names and .jsonl with an object a line, both also as .gz.

In .tsv nothing is quoted or escaped, so a cell can hold quotation marks but neither tab nor line feed; `write_rows`
turns white space and NUL into single spaces in every format, so that all say the same.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ernie2.errors import DataError
from ernie2.storage.atomic import staged_file, storage_errors

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
            cells = [" ".join(cell.replace("\0", " ").split()) for cell in row]
            if tsv:
                file.write("\t".join(cells) + "\n")
            else:
                file.write(json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False) + "\n")
            count += 1
    return count


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
