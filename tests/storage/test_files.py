"""Bytes and lines of files, URLs and streams, whatever the compression, the line ends and the encoding."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from ernie2.errors import DataError
from ernie2.storage import files
from ernie2.storage.files import read_lines

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
def test_lines_come_whole_whatever_the_compression_and_the_blocks(tmp_path, monkeypatch, name, content, block):
    monkeypatch.setattr(files, "_BLOCK", block)
    (tmp_path / name).write_bytes(content)
    assert list(read_lines(str(tmp_path / name))) == [b"one", b"", b"two", b"three"]


@pytest.mark.parametrize(("name", "compress"), [("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)])
def test_a_compressed_file_cut_short_is_an_error_at_every_cut(tmp_path, name, compress):
    whole = compress(CONTENT)
    for cut in range(1, len(whole)):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"cut short|no sound"):
            list(read_lines(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_a_file_that_only_claims_to_be_compressed_is_an_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"plain text, quite long enough to be no header")
    with pytest.raises(DataError, match="no sound"):
        list(read_lines(str(tmp_path / name)))


def test_utf16_is_named_and_an_endless_line_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("abc", encoding="utf-16")
    with pytest.raises(DataError, match="is UTF-16 text; save it as UTF-8"):
        list(read_lines(str(tmp_path / "a.txt")))
    monkeypatch.setattr(files, "_BLOCK", 10)
    monkeypatch.setattr(files, "_LONGEST_LINE", 100)
    (tmp_path / "b.txt").write_text("x\n" + "y" * 200)
    with pytest.raises(DataError, match=r"b.txt, line 2: longer than"):
        list(read_lines(str(tmp_path / "b.txt")))
