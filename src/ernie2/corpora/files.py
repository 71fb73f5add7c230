"""Corpus files: which there are, in one order everywhere, and their bytes or lines, decompressed as they stream.

A file may lie anywhere fsspec reaches. Compressed text is read through pyarrow's codecs, because they say so when a
stream ends before its end, which not every reader of .zst does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa

from ernie2.errors import DataError, did_you_mean

FORMATS = (".txt", ".txt.gz", ".txt.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Extensions that are read, in any case."""
PACKAGED = "package:"
"""Prefix of a corpus that comes with ernie2."""

_CODECS = {".gz": "gzip", ".zst": "zstd"}
_BLOCK = 1 << 20
_LONGEST_LINE = 256 << 20
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def list_files(paths: Sequence[str], formats: Sequence[str] = FORMATS) -> list[str]:
    """The files meant by `paths`: in the order of `paths`, the matches of a glob sorted, none twice.

    Every path is a file, a glob, any fsspec URL of either, or `package:NAME`. Raises `DataError` for a path where
    nothing is, a directory, a glob that matches nothing, and an extension that is not one of `formats`.
    """
    files = [file for path in paths for file in _files_of(path)]
    for file in files:
        file_format(file, formats)
    return list(dict.fromkeys(files))


def file_format(file: str, formats: Sequence[str] = FORMATS) -> str:
    """The extension of `file`, lower-cased and with its compression: 'a/b.JSONL.gz' -> '.jsonl.gz'."""
    name = _name(file).lower()
    found = [extension for extension in formats if name.endswith(extension)]
    if not found:
        suffixes = PurePosixPath(name).suffixes
        extension = "".join(suffixes[-2:] if name.endswith((".gz", ".zst")) else suffixes[-1:])
        kind = f"{extension!r} files" if extension else "files without an extension"
        documents = formats is FORMATS
        table = documents and extension.startswith(".tsv")
        hint = (
            " For labelled pairs give `pairs: {a: …, b: …, label: …}`, the names of its columns, under the corpus."
            if table
            else did_you_mean(extension, formats)
        )
        raise DataError(
            f"{file}: {'documents' if documents else 'tables'} are not read from {kind}.{hint} "
            f"Known: {', '.join(formats)}."
        )
    return found[0]


def file_stems(files: Sequence[str], formats: Sequence[str] = FORMATS) -> dict[str, str]:
    """file -> its name without extension, and with as much of its folders as tells it from the others of that name.

    ['x/a.txt', 'x/b.txt'] -> 'a', 'b' and ['x/a.txt', 'y/a.txt'] -> 'x/a', 'y/a'.
    """
    parts = {file: (*PurePosixPath(file).parts[:-1], _name(file)[: -len(file_format(file, formats))]) for file in files}
    for depth in range(1, max(map(len, parts.values()), default=1) + 1):
        stems = {file: "/".join(folders[-depth:]) for file, folders in parts.items()}
        if len(set(stems.values())) == len(stems):
            return stems
    return {file: file for file in files}  # such as a.txt beside a.jsonl: only the whole name tells them apart


def read_lines(file: str) -> Iterator[bytes]:
    """The lines of `file`, decompressed, without their line feed and without a byte order mark; bounded memory.

    Raises `DataError` when the file cannot be read, is not of its format, ends too early, or has a line above 256 MiB.
    """
    pieces: list[bytes] = []
    size = number = 0
    for block in _blocks(file):
        if b"\n" not in block:
            pieces.append(block)
            size += len(block)
            if size > _LONGEST_LINE:
                raise DataError(f"{file}, line {number + 1}: longer than 256 MiB; break the text into lines.")
            continue
        first, *lines = block.split(b"\n")
        pieces.append(first)
        yield b"".join(pieces)
        pieces = [lines.pop()]
        yield from lines
        number += len(lines) + 1
        size = len(pieces[0])
    if last := b"".join(pieces):
        yield last


def open_file(file: str) -> Any:
    """A seekable binary file object of `file`, wherever it lies. Raises `DataError` when there is none to be had."""
    try:
        return fsspec.open(file, "rb").open()
    except (OSError, ValueError, ImportError) as error:
        raise unreadable(file, error) from error


def unreadable(file: str, error: Exception) -> DataError:
    """What to tell a user whose `file` cannot be read because of `error`."""
    return DataError(f"{file} cannot be read: {_reason(error)}.")


def _blocks(file: str) -> Iterator[bytes]:
    """Decompressed bytes of `file`, about 1 MiB at a time, after the byte order mark if there is one."""
    codec = _CODECS.get(PurePosixPath(_name(file).lower()).suffix)
    with open_file(file) as raw:
        try:
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec) if codec else raw
            block = stream.read(_BLOCK)
            if encoding := _BYTE_ORDER_MARKS.get(block[:2]):
                raise DataError(f"{file} is {encoding} text; save it as UTF-8.")
            block = block.removeprefix(b"\xef\xbb\xbf")
            while block:
                yield block
                block = stream.read(_BLOCK)
        except OSError as error:
            if codec and "runcated" in str(error):
                raise DataError(
                    f"{file} is cut short: the {codec} stream ends before its end. Get the file again."
                ) from error
            if codec and type(error) is OSError and error.errno is None:
                raise DataError(
                    f"{file} is no sound {codec} file ({error}); its name or its content is wrong."
                ) from error
            raise unreadable(file, error) from error


def _files_of(path: str) -> list[str]:
    if path.startswith(PACKAGED):
        return [_packaged(path.removeprefix(PACKAGED))]
    try:
        system, inner = fsspec.core.url_to_fs(path)
        if system.isdir(inner):
            raise DataError(f"{path} is a directory; name files, or a glob such as {path.rstrip('/')}/*.jsonl.")
        if system.exists(inner):
            return [path]
        if any(mark in path for mark in "*?["):
            remote = "://" in path or "::" in path
            matches = sorted(match for match in system.glob(inner) if not system.isdir(match))
            if not matches:
                raise DataError(f"no file matches {path!r}; check the folder and the extension.")
            return [system.unstrip_protocol(match) if remote else match for match in matches]
        raise DataError(f"there is no file {path!r}.{_neighbour(system, inner)} Check the path.")
    except (OSError, ValueError, ImportError) as error:
        raise unreadable(path, error) from error


def _neighbour(system: Any, inner: str) -> str:
    """A hint at the file of the nearest name in the same folder."""
    folder, _, name = inner.rpartition("/")
    try:
        return did_you_mean(name, [entry.rpartition("/")[2] for entry in system.ls(folder, detail=False)])
    except (OSError, ValueError, NotImplementedError):
        return ""


def _packaged(name: str) -> str:
    folder = packaged_folder()
    shipped = sorted(entry.name for entry in folder.iterdir() if _is_corpus(entry.name)) if folder.is_dir() else []
    if name not in shipped:
        raise DataError(
            f"no corpus {name!r} comes with ernie2.{did_you_mean(name, shipped)} "
            f"Shipped: {', '.join(shipped) or 'none'}."
        )
    return str(folder / name)


def packaged_folder() -> Traversable:
    """Where the corpora lie that come with the package."""
    return resources.files("ernie2") / "data"


def _is_corpus(name: str) -> bool:
    return name.lower().endswith(FORMATS)


def _name(file: str) -> str:
    """Last part of a path or URL, without the query of a URL."""
    last = PurePosixPath(file).name
    return last.split("?")[0] if "://" in file else last


def _reason(error: Exception) -> str:
    known: dict[type[Exception], str] = {
        FileNotFoundError: "there is no such file",
        PermissionError: "no permission to read it",
        IsADirectoryError: "it is a directory",
    }
    return known.get(type(error), str(error).rstrip(".") or type(error).__name__)
