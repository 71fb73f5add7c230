"""Read the bytes and lines of files, URLs and standard input, decompressed while they stream.

A line ends with LF, CRLF or, where a file has more bare CRs than LFs, with CR. A byte order mark of UTF-8 is skipped;
UTF-16 and UTF-32 are refused, with or without a mark. Text is UTF-8 without NUL bytes, and JSON holds no half of a
surrogate pair; anything else is a `DataError` that names the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from io import BufferedIOBase, RawIOBase
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import zstandard
from pydantic_core import from_json

from ernie2.errors import DataError

_BLOCK = 1 << 20
_COMPRESSED_BLOCK = 1 << 14  # small, since zstd can turn a byte into thousands
_LONGEST_LINE = 256 << 20
_LARGEST_WINDOW = 1 << 31  # `zstd --long=31`, the most the format's tools write
_KEY = re.compile(rb'"[ \t\n\r]*:')
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_PACKED = {
    b"\x1f\x8b": ("gzip", ".gz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    b"PK\x03\x04": ("a zip archive (as .xlsx is)", ""),
    b"PAR1": ("parquet", ".parquet"),
    b"ARROW1": ("Arrow", ".arrow"),
}


class RepeatedKeyError(DataError):
    """A JSON object has a key twice, so that it is unknown which value counts."""


def read_lines(file: str) -> Iterator[bytes]:
    """Yield the lines of a file or URL without their line ends and without a byte order mark; bounded memory.

    Raises `DataError` when the file cannot be read, is not of its format, is UTF-16, ends too early, or has a line
    above 256 MiB.
    """
    with open_file(file) as raw:
        try:
            yield from _lines(_decompressed(raw, file), file)
        except OSError as error:
            raise unreadable(file, error) from error


def lines_of(stream: BinaryIO | BufferedIOBase | RawIOBase, name: str = "standard input") -> Iterator[bytes]:
    """Yield the lines of an open stream of bytes as `read_lines` does, as soon as they arrive."""
    read = getattr(stream, "read1", stream.read)
    return _lines(iter(lambda: read(_BLOCK), b""), name)


def open_file(file: str) -> Any:
    """Open a file or URL as a seekable binary file object. Raises `DataError` where that fails."""
    try:
        return fsspec.open(file, "rb").open()
    except (OSError, ValueError, ImportError) as error:
        raise unreadable(file, error) from error


def unreadable(file: str, error: Exception) -> DataError:
    """Return the error for a `file` that cannot be read because of `error`."""
    known: dict[type[Exception], str] = {
        FileNotFoundError: "there is no such file",
        PermissionError: "no permission to read it",
        IsADirectoryError: "it is a directory",
    }
    reason = known.get(type(error), str(error).rstrip(".") or type(error).__name__)
    return DataError(f"{file} cannot be read: {reason}.")


def text_lines(file: str, lines: Iterable[bytes] | None = None) -> Iterator[str]:
    """Yield the lines of a file, or `lines` of what messages call `file`, as text. Raises as `decoded` does."""
    return (
        decoded(line, f"{file}, line {at}") for at, line in enumerate(read_lines(file) if lines is None else lines, 1)
    )


def decoded(line: bytes, place: str) -> str:
    """Return the text of a line. Raises `DataError`, with the byte, for a NUL and for what is not UTF-8."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(place, error) from error
    if "\0" in text:
        raise DataError(
            f"{place}, byte {line.index(0) + 1}: a NUL byte; the file is binary, UTF-16 without a byte order mark, or "
            "damaged. Save it as UTF-8 text."
        )
    return text


def not_utf8(place: str, error: UnicodeDecodeError) -> DataError:
    """Return the error for bytes that are not UTF-8."""
    return DataError(
        f"{place}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x}: {error.reason}); "
        "save the file as UTF-8."
    )


def json_value(line: bytes | str, place: str) -> Any:
    """Return the value of a JSON text.

    Raises `DataError` for invalid JSON, invalid UTF-8 and half a surrogate pair, and `RepeatedKeyError` for an object
    with a key given twice.
    """
    try:
        value = from_json(line, cache_strings="keys")
    except (ValueError, TypeError) as error:  # TypeError: a string that cannot be encoded
        raise _not_json(line, place, error) from error
    written = line.encode() if isinstance(line, str) else line
    if len(_KEY.findall(written)) > _keys(value):  # a string may hold what looks like a key
        _check_keys(written, place)
    return value


def _keys(value: Any) -> int:
    inner = value
    if isinstance(value, dict):
        inner = value.values()
    elif not isinstance(value, list):
        return 0
    own = len(value) if isinstance(value, dict) else 0
    return own + sum(_keys(one) for one in inner if type(one) in (dict, list))


def _check_keys(line: bytes, place: str) -> None:
    """Raise `RepeatedKeyError` where an object has a key twice."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(f"{place}: the key {key[:60]!r} stands twice in one object; take one out.")
            seen.add(key)

    json.loads(line, object_pairs_hook=check, strict=False)


def json_name(value: Any) -> str:
    """Return what to call a value of the wrong type in a message: 'null', 'a number', 'an object'."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if value != value:
        return "NaN"
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object", bytes: "binary"}
    return names.get(type(value), f"a {type(value).__name__}")


def file_name(file: str) -> str:
    """Return the last part of a path or URL, without the query of a URL."""
    last = PurePosixPath(file).name
    return last.split("?")[0] if "://" in file else last


def _not_json(line: bytes | str, place: str, error: Exception) -> DataError:
    if isinstance(line, bytes):
        try:
            decoded(line, place)
        except DataError as decoding:
            return decoding
    lone = isinstance(error, TypeError)
    reason = "lone surrogate" if lone else re.sub(r" at line 1 column (\d+)$", r" at byte \1", str(error))
    if "surrogate" in reason or "hex escape" in reason:
        return DataError(
            f"{place}: not valid JSON ({reason}); an escape such as \\ud83d alone is half a character. Write both "
            "halves, or take it out."
        )
    if "EOF" in reason:
        return DataError(f"{place}: not valid JSON: it is cut short ({reason}).")
    return DataError(f"{place}: not valid JSON ({reason}).")


def _lines(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = number = 0
    for block in _with_line_feeds(blocks, name):
        if b"\n" not in block:
            pieces.append(block)
            size += len(block)
            if size > _LONGEST_LINE:
                raise DataError(f"{name}, line {number + 1}: longer than 256 MiB; break the text into lines.")
            continue
        first, *lines = block.split(b"\n")
        pieces.append(first)
        yield b"".join(pieces).rstrip(b"\r")
        pieces = [lines.pop()]
        yield from (line.rstrip(b"\r") for line in lines)
        number += len(lines) + 1
        size = len(pieces[0])
    if last := b"".join(pieces).rstrip(b"\r"):
        yield last


def _with_line_feeds(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """`blocks` without a byte order mark and, where CR alone ends lines, with LF in its place."""
    head = b""
    for block in blocks:  # until a line end is seen, so that its kind is known
        head += block
        if len(head) >= 4 and (b"\n" in head or b"\r" in head[:-1] or len(head) > _LONGEST_LINE):
            break
    _check_kind(head, name)
    rest = chain([head.removeprefix(_UTF8_MARK)], blocks)
    if head.count(b"\r") - head.count(b"\r\n") <= head.count(b"\n"):
        yield from rest
        return
    held = b""
    for block in rest:
        held += block
        whole = held.removesuffix(b"\r")  # a CR at the end may be half of a CRLF
        yield whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        held = held[len(whole) :]
    yield held.replace(b"\r", b"\n")


def _check_kind(head: bytes, name: str) -> None:
    """Raises `DataError` where the first bytes are not those of UTF-8 text."""
    for mark, encoding in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{name} is {encoding} text; save it as UTF-8.")
    for magic, (kind, extension) in _PACKED.items():
        if head.startswith(magic):
            what = f"give it a name in {extension}" if extension else "save its content as text"
            now = what if name != "standard input" else "decompress it first"
            raise DataError(f"{name} is not text but {kind}; {now}.")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder.")
    sample = head[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > max(1, len(sample) // 8) and min(even, odd) * 10 <= max(even, odd):
        raise DataError(f"{name} looks like UTF-16 text without a byte order mark; save it as UTF-8.")


def _decompressed(raw: Any, file: str) -> Iterator[bytes]:
    """The content of an open file, decompressed as its name says, about 1 MiB at a time."""
    extension = PurePosixPath(file_name(file).lower()).suffix
    if extension == ".gz":
        yield from _gunzipped(raw, file)
    elif extension == ".zst":
        yield from _zstd_decompressed(raw, file)
    else:
        yield from iter(lambda: raw.read(_BLOCK), b"")


def _gunzipped(raw: Any, file: str) -> Iterator[bytes]:
    """As pyarrow reads it, which notices a stream that ends before its end."""
    try:
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip")
        yield from iter(lambda: stream.read(_BLOCK), b"")
    except OSError as error:
        if "runcated" in str(error):
            raise _cut_short(file, "gzip") from error
        if type(error) is OSError and error.errno is None:
            raise DataError(f"{file} is not a valid gzip file ({error}); its name or its content is wrong.") from error
        raise


def _zstd_decompressed(raw: Any, file: str) -> Iterator[bytes]:
    """Every frame of a zstd file, whatever its window."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    frame = None
    while chunk := raw.read(_COMPRESSED_BLOCK):
        while chunk:
            frame = frame or decompressor.decompressobj()
            try:
                content = frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise DataError(
                    f"{file} is not a valid zstd file ({error}); it is damaged, or its name is wrong."
                ) from error
            except MemoryError as error:
                raise DataError(
                    f"{file} needs more memory to decompress than there is; compress it again without --long."
                ) from error
            if content:
                yield content
            chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise _cut_short(file, "zstd")


def _cut_short(file: str, codec: str) -> DataError:
    return DataError(f"{file} is cut short: the {codec} stream ends before its end. Get the file again.")
