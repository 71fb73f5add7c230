import os

import pytest

from ernie2.storage import verified
from ernie2.storage.atomic import checksum
from ernie2.storage.verified import first_difference


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "SETTLED_SECONDS", -1.0)
    (tmp_path / "shard").mkdir()
    (tmp_path / "shard" / "a.npy").write_bytes(b"one")
    return tmp_path / "shard"


def test_a_file_is_read_once_and_again_when_it_changed(folder, monkeypatch):
    expected, read = {"a.npy": checksum(folder / "a.npy")}, []
    monkeypatch.setattr(verified, "checksum", lambda path: read.append(path) or checksum(path))
    for _ in range(3):
        assert first_difference(folder, expected) is None
    assert len(read) == 1
    assert os.listdir(folder) == ["a.npy"]
    (folder / "a.npy").write_bytes(b"two")
    assert first_difference(folder, expected) == "a.npy"
    (folder / "a.npy").write_bytes(b"one")
    assert first_difference(folder, expected) is None
    assert first_difference(folder.rename(folder.with_name("copy")), expected) is None
    assert len(read) == 4


def test_a_file_with_the_times_of_before_is_read_again(folder):
    expected, before = {"a.npy": checksum(folder / "a.npy")}, (folder / "a.npy").stat()
    assert first_difference(folder, expected) is None
    (folder / "a.npy").write_bytes(b"two")
    os.utime(folder / "a.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first_difference(folder, expected) == "a.npy"


def test_a_file_changed_a_moment_ago_is_not_remembered(folder, monkeypatch):
    monkeypatch.setattr(verified, "SETTLED_SECONDS", 60.0)
    assert first_difference(folder, {"a.npy": checksum(folder / "a.npy")}) is None
    assert not (folder.parent / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_or_unwritable_cache_means_reading_again(folder, content):
    expected = {"a.npy": checksum(folder / "a.npy")}
    first_difference(folder, expected)
    (note,) = (folder.parent / "cache/ernie2/verified").iterdir()
    note.write_bytes(content)
    assert first_difference(folder, expected) is None
    (folder.parent / "cache/ernie2/verified" / note.name).unlink()
    note.parent.rmdir()
    note.parent.write_text("a file in the way")
    assert first_difference(folder, expected) is None
