"""What the disk refuses to remove is named."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ernie2.errors import StorageError
from ernie2.storage.atomic import remove_leftovers
from ernie2.storage.removing import discard, discard_folder, remove


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_files_folders_and_links_are_removed_and_what_is_absent_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").touch()
    for name in ("folder", "link", "file", "absent"):
        remove(tmp_path / name)
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize(("library", "function"), [(shutil, "rmtree"), (Path, "unlink")])
def test_an_error_of_the_disk_names_the_path_and_says_what_to_do(
    library: object, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old"
    if library is shutil:
        path.mkdir()
    monkeypatch.setattr(library, function, refuse)
    with pytest.raises(StorageError, match=r"old cannot be removed: Input/output error\. Ask for help\."):
        remove(path, advice="Ask for help.")
    discard(path)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"warning: {path} cannot be removed: Input/output error. It is no longer needed: " + (
        "remove it yourself.\n"
    )


def test_a_folder_is_discarded_in_one_step_so_that_a_kill_leaves_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old" / "inner").mkdir(parents=True)
    with monkeypatch.context() as during:
        during.setattr(shutil, "rmtree", refuse)
        discard_folder(tmp_path / "old")
    assert "cannot be removed" in capsys.readouterr().err
    assert remove_leftovers(tmp_path) == [tmp_path / ".old.deleted_.tmp"]
    assert not list(tmp_path.iterdir())
