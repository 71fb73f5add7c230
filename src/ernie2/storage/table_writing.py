"""Write tables: .tsv with a header line, or .jsonl with one object per line, each optionally as .gz.

In .tsv nothing is quoted or escaped, so a cell may contain quotation marks but no tab or line feed. `write_rows`
replaces white space and NUL by single spaces in every format, so that all formats have the same content.
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

OUTPUT_FORMATS = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
"""Extensions of the supported output formats."""


def check_output(out: Path, inputs: Iterable[str] = ()) -> None:
    """Check that `out` can be written, before any work.

    Raises `DataError` for an unknown extension, a directory, or one of `inputs`; `StorageError` if its folder cannot be
    created or written to.
    """
    if not out.name.lower().endswith(OUTPUT_FORMATS):
        raise DataError(f"{out}: tables are written as {', '.join(OUTPUT_FORMATS)}; change its extension.")
    if out.is_dir():
        raise DataError(f"{out} is a directory; give a file, such as {out.parent / ('rows' + OUTPUT_FORMATS[0])}.")
    if out.exists() and any(os.path.exists(file) and os.path.samefile(file, out) for file in inputs):
        raise DataError(f"{out} is also an input file; give the output another name.")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(out.parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_rows(out: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Write a table atomically, replacing an existing one; return the number of rows.

    Output is deterministic. Raises `StorageError`.
    """
    count = 0
    tsv = ".tsv" in out.name.lower()[-7:]
    with staged_file(out) as new, _open(new, compressed=out.name.lower().endswith(".gz")) as file:
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
def _open(path: Path, *, compressed: bool) -> Iterator[TextIO]:
    """Open a text file for writing; the gzip header contains no name or time."""
    with open(path, "wb") as raw:
        if not compressed:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as text:
                yield text
            return
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, io.TextIOWrapper(packed, encoding="utf-8") as text:
            yield text
