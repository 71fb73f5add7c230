"""A remote file is copied whole, or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import fsspec
import pytest

from ernie2.errors import StorageError
from ernie2.storage.remote import download


def test_a_file_is_copied_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/file", b"content")
    download(files, "/bucket/file", tmp_path / "new" / "file")
    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError, match="there is no /bucket/other"):
        download(files, "/bucket/other", tmp_path / "other")

    def broken(source: str, target: str) -> None:
        Path(target).write_bytes(b"con")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "get_file", broken)
    with pytest.raises(StorageError, match=r"Input/output error.*Check the bucket"):
        download(files, "/bucket/file", tmp_path / "other", what_now="Check the bucket.")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
