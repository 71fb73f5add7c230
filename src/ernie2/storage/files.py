"""Stream bytes and lines from files, URLs and standard input, with decompression.

A line ends with LF or CRLF, or with CR in a file with more bare CRs than LFs. A UTF-8 byte order mark is skipped;
UTF-16 and UTF-32 are errors, with or without a mark. Text must be UTF-8 without NUL bytes, and JSON without lone
surrogates; otherwise `DataError` names the line.
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
_MAX_LINE_BYTES = 256 << 20
_MAX_WINDOW = 1 << 31  # `zstd --long=31`, the most the format's tools write
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
    """A JSON object has a key twice, so its value is ambiguous."""


def read_lines(file: str) -> Iterator[bytes]:
    """Yield the lines of a file or URL without line ends and byte order mark, in bounded memory.

    Raises `DataError` if the file cannot be read, does not match its extension, is UTF-16, is truncated, or has a line
    above 256 MiB.
    """
    with open_file(file) as raw:
        try:
            yield from _lines(_decompress(raw, file), file)
        except OSError as error:
            raise read_error(file, error) from error


def stream_lines(stream: BinaryIO | BufferedIOBase | RawIOBase, name: str = "standard input") -> Iterator[bytes]:
    """Yield the lines of an open binary stream like `read_lines`, as soon as they arrive."""
    read = getattr(stream, "read1", stream.read)
    return _lines(iter(lambda: read(_BLOCK), b""), name)


def open_file(file: str) -> Any:
    """Open a file or URL as a seekable binary file object. Raises `DataError`."""
    try:
        return fsspec.open(file, "rb").open()
    except (OSError, ValueError, ImportError) as error:
        raise read_error(file, error) from error


def read_error(file: str, error: Exception) -> DataError:
    """Return the error for a `file` that cannot be read because of `error`."""
    known: dict[type[Exception], str] = {
        FileNotFoundError: "no such file",
        PermissionError: "no permission to read it",
        IsADirectoryError: "it is a directory",
    }
    reason = known.get(type(error), str(error).rstrip(".") or type(error).__name__)
    return DataError(f"{file} cannot be read: {reason}.")


def text_lines(file: str, lines: Iterable[bytes] | None = None) -> Iterator[str]:
    """Yield the lines of `file` as text; `lines` replaces reading it. Raises like `decode_line`."""
    return (
        decode_line(line, f"{file}, line {at}")
        for at, line in enumerate(read_lines(file) if lines is None else lines, 1)
    )


def decode_line(line: bytes, place: str) -> str:
    """Return the text of a line. Raises `DataError`, with the byte offset, for NUL and invalid UTF-8."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise utf8_error(place, error) from error
    if "\0" in text:
        raise DataError(
            f"{place}, byte {line.index(0) + 1}: a NUL byte; the file is binary, UTF-16 without a byte order mark, or "
            "damaged. Save it as UTF-8 text."
        )
    return text


def utf8_error(place: str, error: UnicodeDecodeError) -> DataError:
    """Return the error for bytes that are not valid UTF-8."""
    return DataError(
        f"{place}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x}: {error.reason}); "
        "save the file as UTF-8."
    )


def json_value(line: bytes | str, place: str) -> Any:
    """Return the value of a JSON text.

    Raises `DataError` for invalid JSON, invalid UTF-8 and lone surrogates, and `RepeatedKeyError` for a key that occurs
    twice in one object.
    """
    try:
        value = from_json(line, cache_strings="keys")
    except (ValueError, TypeError) as error:  # TypeError: a string that cannot be encoded
        raise _json_error(line, place, error) from error
    written = line.encode() if isinstance(line, str) else line
    if len(_KEY.findall(written)) > _count_keys(value):  # a string may contain text that looks like a key
        _check_keys(written, place)
    return value


def _count_keys(value: Any) -> int:
    inner = value
    if isinstance(value, dict):
        inner = value.values()
    elif not isinstance(value, list):
        return 0
    own = len(value) if isinstance(value, dict) else 0
    return own + sum(_count_keys(one) for one in inner if type(one) in (dict, list))


def _check_keys(line: bytes, place: str) -> None:
    """Raise `RepeatedKeyError` if an object has a key twice."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise RepeatedKeyError(f"{place}: the key {key[:60]!r} occurs twice in one object; remove one.")
            seen.add(key)

    json.loads(line, object_pairs_hook=check, strict=False)


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type for messages: 'null', 'a number', 'an object'."""
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


def _json_error(line: bytes | str, place: str, error: Exception) -> DataError:
    if isinstance(line, bytes):
        try:
            decode_line(line, place)
        except DataError as decoding:
            return decoding
    lone = isinstance(error, TypeError)
    reason = "lone surrogate" if lone else re.sub(r" at line 1 column (\d+)$", r" at byte \1", str(error))
    if "surrogate" in reason or "hex escape" in reason:
        return DataError(
            f"{place}: not valid JSON ({reason}); an escape such as \\ud83d alone is half a character. Write both "
            "halves, or remove it."
        )
    if "EOF" in reason:
        return DataError(f"{place}: not valid JSON: it is truncated ({reason}).")
    return DataError(f"{place}: not valid JSON ({reason}).")


def _lines(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    pieces: list[bytes] = []
    size = number = 0
    for block in _with_line_feeds(blocks, name):
        if b"\n" not in block:
            pieces.append(block)
            size += len(block)
            if size > _MAX_LINE_BYTES:
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
    """Yield `blocks` without a byte order mark; if lines end with CR only, with LF instead."""
    head = b""
    for block in blocks:  # until the first line end, which shows the kind of line end
        head += block
        if len(head) >= 4 and (b"\n" in head or b"\r" in head[:-1] or len(head) > _MAX_LINE_BYTES):
            break
    _check_kind(head, name)
    rest = chain([head.removeprefix(_UTF8_MARK)], blocks)
    if head.count(b"\r") - head.count(b"\r\n") <= head.count(b"\n"):
        yield from rest
        return
    pending = b""
    for block in rest:
        pending += block
        complete = pending.removesuffix(b"\r")  # a CR at the end may be half of a CRLF
        yield complete.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        pending = pending[len(complete) :]
    yield pending.replace(b"\r", b"\n")


def _check_kind(head: bytes, name: str) -> None:
    """Raise `DataError` if the first bytes are not UTF-8 text."""
    for mark, encoding in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise DataError(f"{name} is {encoding} text; save it as UTF-8.")
    for magic, (kind, extension) in _PACKED.items():
        if head.startswith(magic):
            rename = f"change its extension to {extension}" if extension else "save its content as text"
            advice = rename if name != "standard input" else "decompress it first"
            raise DataError(f"{name} is not text but {kind}; {advice}.")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise DataError(f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder.")
    sample = head[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > max(1, len(sample) // 8) and min(even, odd) * 10 <= max(even, odd):
        raise DataError(f"{name} looks like UTF-16 text without a byte order mark; save it as UTF-8.")


def _decompress(raw: Any, file: str) -> Iterator[bytes]:
    """Yield the content of an open file, decompressed according to its extension, about 1 MiB at a time."""
    extension = PurePosixPath(file_name(file).lower()).suffix
    if extension == ".gz":
        yield from _decompress_gzip(raw, file)
    elif extension == ".zst":
        yield from _decompress_zstd(raw, file)
    else:
        yield from iter(lambda: raw.read(_BLOCK), b"")


def _decompress_gzip(raw: Any, file: str) -> Iterator[bytes]:
    """Decompress with pyarrow, which detects truncated streams."""
    try:
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "gzip")
        yield from iter(lambda: stream.read(_BLOCK), b"")
    except OSError as error:
        if "runcated" in str(error):
            raise _truncated_error(file, "gzip") from error
        if type(error) is OSError and error.errno is None:
            raise DataError(f"{file} is not a valid gzip file ({error}); its extension or content is wrong.") from error
        raise


def _decompress_zstd(raw: Any, file: str) -> Iterator[bytes]:
    """Decompress all frames of a zstd file, of any window size."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    frame = None
    while chunk := raw.read(_COMPRESSED_BLOCK):
        while chunk:
            frame = frame or decompressor.decompressobj()
            try:
                content = frame.decompress(chunk)
            except zstandard.ZstdError as error:
                raise DataError(
                    f"{file} is not a valid zstd file ({error}); it is damaged, or its extension is wrong."
                ) from error
            except MemoryError as error:
                raise DataError(
                    f"{file} needs more memory to decompress than is available; compress it again without --long."
                ) from error
            if content:
                yield content
            chunk, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise _truncated_error(file, "zstd")


def _truncated_error(file: str, codec: str) -> DataError:
    return DataError(f"{file} is truncated: the {codec} stream is incomplete. Get the file again.")
