from __future__ import annotations

import gzip

import pytest
import zstandard

from ernie2.corpora import files
from ernie2.corpora.files import file_format, file_stems, list_files, read_lines
from ernie2.errors import DataError


def test_the_matches_of_a_glob_are_sorted_and_no_file_comes_twice(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl"):
        (tmp_path / name).write_text("x")
    found = list_files([f"{tmp_path}/c.jsonl", f"{tmp_path}/*.txt", f"{tmp_path}/*.jsonl"])
    assert [file.rpartition("/")[2] for file in found] == ["c.jsonl", "a.txt", "b.txt"]


def test_a_name_that_exists_is_not_read_as_a_glob(tmp_path):
    (tmp_path / "a[1].txt").write_text("x")
    assert list_files([f"{tmp_path}/a[1].txt"]) == [f"{tmp_path}/a[1].txt"]


def test_files_are_found_and_read_by_url():
    import fsspec

    with fsspec.open("memory://corpus/a.txt", "wb") as file:
        file.write(b"one\ntwo")
    assert list_files(["memory://corpus/*.txt"]) == ["memory:///corpus/a.txt"]
    assert list(read_lines("memory://corpus/a.txt")) == [b"one", b"two"]


def test_what_is_not_there_is_named_with_its_nearest_neighbour(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    with pytest.raises(DataError, match=r"no file '.*corpsu.txt'. Did you mean 'corpus.txt'\?"):
        list_files([f"{tmp_path}/corpsu.txt"])
    with pytest.raises(DataError, match="is a directory"):
        list_files([str(tmp_path)])
    with pytest.raises(DataError, match="no file matches"):
        list_files([f"{tmp_path}/*.jsonl"])
    with pytest.raises(DataError, match=r"nothere://a.txt cannot be read: .*nothere"):
        list_files(["nothere://a.txt"])


@pytest.mark.parametrize(
    ("name", "hint"), [("a.json", "'.jsonl'"), ("a.tar.gz", "'.tar.gz' files"), ("a", "without an")]
)
def test_an_unknown_extension_is_refused_with_the_known_ones(tmp_path, name, hint):
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"Known: .txt, .txt.gz") as caught:
        list_files([f"{tmp_path}/{name}"])
    assert hint in str(caught.value)


def test_a_packaged_corpus_is_found_by_name_and_a_wrong_name_is_told_what_is_shipped(tmp_path, monkeypatch):
    (tmp_path / "demo-en.jsonl").write_text("{}")
    (tmp_path / "NOTICE").write_text("")
    monkeypatch.setattr(files, "packaged_folder", lambda: tmp_path)
    assert list_files(["package:demo-en.jsonl"]) == [str(tmp_path / "demo-en.jsonl")]
    with pytest.raises(DataError, match=r"Did you mean 'demo-en.jsonl'\? Shipped: demo-en.jsonl."):
        list_files(["package:demo-em.jsonl"])


def test_formats_are_known_in_any_case():
    assert file_format("s3://b/A.JSONL.gz") == ".jsonl.gz"
    assert file_format("https://host/a.txt?key=1") == ".txt"


def test_stems_take_as_much_of_the_folders_as_tells_files_apart():
    assert list(file_stems(["x/a.txt", "x/b.jsonl.gz"]).values()) == ["a", "b"]
    assert list(file_stems(["x/a.txt", "y/a.txt"]).values()) == ["x/a", "y/a"]
    assert list(file_stems(["x/a.txt", "x/a.jsonl"]).values()) == ["x/a.txt", "x/a.jsonl"]


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
    assert list(read_lines(str(tmp_path / name))) == [b"one", b"", b"two\r", b"three"]


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
