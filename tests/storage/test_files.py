"""Bytes and lines of files, URLs and streams, whatever the compression, the line ends and the encoding."""

from __future__ import annotations

import gzip
import io
import json

import pytest
import zstandard

from ernie2.errors import DataError
from ernie2.storage import files
from ernie2.storage.files import RepeatedKeyError, decode_line, json_value, read_lines, stream_lines

CONTENT = b"one\n\ntwo\r\nthree"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", CONTENT),
        ("a.txt", b"\xef\xbb\xbf" + CONTENT),
        ("a.txt.gz", gzip.compress(CONTENT, mtime=0)),
        ("a.txt.gz", gzip.compress(CONTENT[:4], mtime=0) + gzip.compress(CONTENT[4:], mtime=0)),
        ("a.txt.zst", zstandard.compress(CONTENT)),
        ("a.txt.zst", zstandard.compress(CONTENT[:6]) + zstandard.compress(CONTENT[6:])),
    ],
)
@pytest.mark.parametrize("block", [1 << 20, 4])
def test_lines_do_not_depend_on_compression_and_block_size(tmp_path, monkeypatch, name, content, block):
    monkeypatch.setattr(files, "_BLOCK", block)
    (tmp_path / name).write_bytes(content)
    assert list(read_lines(str(tmp_path / name))) == [b"one", b"", b"two", b"three"]


@pytest.mark.parametrize(("name", "compress"), [("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)])
def test_a_compressed_file_cut_short_is_an_error_at_every_cut(tmp_path, name, compress):
    content = compress(CONTENT)
    for cut in range(1, len(content)):
        (tmp_path / name).write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"truncated|not a valid"):
            list(read_lines(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_a_file_that_only_claims_to_be_compressed_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"plain text, quite long enough to be no header")
    with pytest.raises(DataError, match="not a valid"):
        list(read_lines(str(tmp_path / name)))


def test_utf16_is_named_and_an_endless_line_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc", encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16 text; save it as UTF-8"):
        list(read_lines(str(tmp_path / "a.txt")))
    monkeypatch.setattr(files, "_BLOCK", 10)
    monkeypatch.setattr(files, "_MAX_LINE_BYTES", 100)
    (tmp_path / "b.txt").write_text("x\n" + "y" * 200)
    with pytest.raises(DataError, match=r"b.txt, line 2: longer than"):
        list(read_lines(str(tmp_path / "b.txt")))


@pytest.mark.parametrize("block", [1 << 20, 3, 1])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"one\rtwo\r\rthree", [b"one", b"two", b"", b"three"]),
        (b"one\rtwo\rthree\n", [b"one", b"two", b"three"]),  # a line feed that an editor added
        (b"one\r\ntwo\r\n", [b"one", b"two"]),
        (b"one\r", [b"one"]),
        (b"", []),
    ],
)
def test_cr_ends_a_line_where_a_file_has_more_of_them_than_line_feeds(tmp_path, monkeypatch, block, content, lines):
    monkeypatch.setattr(files, "_BLOCK", block)
    (tmp_path / "a.txt").write_bytes(content)
    assert list(read_lines(str(tmp_path / "a.txt"))) == lines
    assert list(stream_lines(io.BytesIO(content))) == lines


def test_a_cr_inside_a_line_of_a_file_with_line_feeds_is_white_space():
    assert list(stream_lines(io.BytesIO(b"one\rstill one\ntwo\n"))) == [b"one\rstill one", b"two"]


def test_a_zstd_window_of_any_size_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    stream = compressor.compressobj()  # without its size, so that the frame needs the full window
    packed = stream.compress(CONTENT) + stream.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 1 << 28
    (tmp_path / "a.txt.zst").write_bytes(packed)
    assert list(read_lines(str(tmp_path / "a.txt.zst"))) == [b"one", b"", b"two", b"three"]


@pytest.mark.parametrize("position", range(4, 30, 5))
def test_a_damaged_zstd_file_is_named(tmp_path, position):
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(b"some text that is not the same " * 9))
    packed[position] ^= 0x41
    (tmp_path / "a.txt.zst").write_bytes(packed)
    with pytest.raises(DataError, match=r"a.txt.zst (is not a valid zstd file|is truncated)"):
        list(read_lines(str(tmp_path / "a.txt.zst")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ab\nc".encode("utf-16-le"), "looks like UTF-16 text without a byte order mark; save it as UTF-8"),
        ("ab\nc".encode("utf-16-be"), "looks like UTF-16 text without"),
        ("ab".encode("utf-32"), "is UTF-32 text"),
        ("\ufeffab".encode("utf-16-be"), "is UTF-16 text"),
        (gzip.compress(b"text", mtime=0), "is not text but gzip; change its extension to .gz"),
        (zstandard.compress(b"text"), "is not text but zstd; change its extension to .zst"),
        (b"PK\x03\x04 workbook", "is not text but a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer, not the file itself"),
    ],
)
def test_what_is_no_utf8_text_is_named_with_what_to_do(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_lines(str(tmp_path / "a.txt")))


def test_standard_input_is_read_as_files_are():
    assert list(stream_lines(io.BytesIO(b'\xef\xbb\xbf{"a": 1}\r\n\r\nb'))) == [b'{"a": 1}', b"", b"b"]
    with pytest.raises(DataError, match="standard input is not text but gzip; decompress it first"):
        list(stream_lines(io.BytesIO(gzip.compress(b"text"))))


def test_a_line_comes_before_the_stream_ends():
    class Pipe(io.RawIOBase):
        def __init__(self):
            self.waiting = [b"first\n", b"second\n"]

        def read1(self, size):
            return self.waiting.pop(0) if self.waiting else b""

    pipe = Pipe()
    assert next(stream_lines(pipe)) == b"first"
    assert pipe.waiting == [b"second\n"]


def test_text_is_utf8_without_nul_bytes():
    assert decode_line("né".encode(), "here") == "né"
    with pytest.raises(DataError, match=r"here, byte 2: not UTF-8 \(0xff: invalid start byte\)"):
        decode_line(b"a\xff", "here")
    with pytest.raises(DataError, match="here, byte 2: not UTF-8"):
        decode_line(b"a\xed\xa0\x80", "here")  # a lone surrogate as bytes
    with pytest.raises(DataError, match="here, byte 3: a NUL byte"):
        decode_line(b"ab\0c", "here")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (rb'{"a": "\ud83d"}', "half a character. Write both halves"),
        (rb'{"a": "\udc00 x"}', "half a character"),
        ('{"a": "\ud83d"}', "half a character"),
        (b'{"a": "\xff"}', "byte 8: not UTF-8"),
        (b'{"a": 1', "truncated"),
        (b"[" * 5_000, "not valid JSON"),
    ],
)
def test_json_that_holds_no_text_is_refused_with_its_place(line, message):
    with pytest.raises(DataError, match="here.*" + message):
        json_value(line, "here")


def test_whole_surrogate_pairs_are_characters():
    assert json_value(rb'{"a": "\ud83d\ude00"}', "here") == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (b'{"y": "a", "x": 1, "y": "b"}', "y"),
        (b'{"y" :1,"\\u0079"\t: 1}', "y"),
        ('{"x": [{"a": {"z": 1, "z": 1}}]}', "z"),
        (b'[{"y": ["\\": "], "n": 1, "n": 2}]', "n"),
    ],
)
def test_a_key_that_occurs_twice_is_refused(line, key):
    with pytest.raises(RepeatedKeyError, match=f"^here: the key '{key}' occurs twice in one object; remove one.$"):
        json_value(line, "here")


@pytest.mark.parametrize(
    "line", [r'{"a": "\": \" :", "b": [{"a": 1}, {"a": 2}], "c": {"a": {"a": 1}}}', r'["\":", "\":"]', "3"]
)
def test_the_same_key_in_different_objects_and_in_texts_is_no_fault(line):
    assert json_value(line, "here") == json.loads(line)
