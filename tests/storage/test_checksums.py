"""Checksums are compared once, and changes of a model folder are logged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ernie2.storage import checksums
from ernie2.storage.atomic import checksum
from ernie2.storage.checksums import CHECKSUMS, first_mismatch, is_complete, warn_about_changes, write_checksums


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checksums, "SETTLED_SECONDS", -1.0)
    (tmp_path / "shard").mkdir()
    (tmp_path / "shard" / "a.npy").write_bytes(b"one")
    return tmp_path / "shard"


def test_a_file_is_read_once_and_again_when_it_changed(folder, monkeypatch):
    expected, read = {"a.npy": checksum(folder / "a.npy")}, []
    monkeypatch.setattr(checksums, "checksum", lambda path: read.append(path) or checksum(path))
    for _ in range(3):
        assert first_mismatch(folder, expected) is None
    assert len(read) == 1
    assert os.listdir(folder) == ["a.npy"]
    (folder / "a.npy").write_bytes(b"two")
    assert first_mismatch(folder, expected) == "a.npy"
    (folder / "a.npy").write_bytes(b"one")
    assert first_mismatch(folder, expected) is None
    assert first_mismatch(folder.rename(folder.with_name("copy")), expected) is None
    assert len(read) == 4


def test_a_file_with_the_times_of_before_is_read_again(folder):
    expected, before = {"a.npy": checksum(folder / "a.npy")}, (folder / "a.npy").stat()
    assert first_mismatch(folder, expected) is None
    (folder / "a.npy").write_bytes(b"two")
    os.utime(folder / "a.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first_mismatch(folder, expected) == "a.npy"


def test_a_file_changed_a_moment_ago_is_not_remembered(folder, monkeypatch):
    monkeypatch.setattr(checksums, "SETTLED_SECONDS", 60.0)
    assert first_mismatch(folder, {"a.npy": checksum(folder / "a.npy")}) is None
    assert not (folder.parent / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_or_unwritable_cache_means_reading_again(folder, content):
    expected = {"a.npy": checksum(folder / "a.npy")}
    first_mismatch(folder, expected)
    (note,) = (folder.parent / "cache/ernie2/verified").iterdir()
    note.write_bytes(content)
    assert first_mismatch(folder, expected) is None
    (folder.parent / "cache/ernie2/verified" / note.name).unlink()
    note.parent.rmdir()
    note.parent.write_text("a file in the way")
    assert first_mismatch(folder, expected) is None


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "_reported", set())
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    return tmp_path


def test_nothing_is_logged_for_an_unchanged_folder_or_one_of_another_tool(written, capsys):
    (written / "notes.txt").write_text("added later")
    warn_about_changes(written)
    (written / CHECKSUMS).unlink()
    (written / "model.safetensors").write_text("other")
    checksums._reported.clear()
    warn_about_changes(written)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("content", [None, b"", b"model.safetensorr"])
def test_changed_weights_are_warned_of_by_name_in_one_line_once(written, content, capsys):
    file = written / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    for _ in range(2):
        warn_about_changes(written)
    out, message = capsys.readouterr()
    assert (out, message.count("\n")) == ("", 1)
    assert message.startswith(f"warning: model.safetensors in {written} changed after ernie2 wrote it")


def test_edited_files_of_other_kinds_are_named_in_a_note(written, capsys):
    (written / "config.json").write_text("edited")
    (written / "README.md").write_text("edited")
    warn_about_changes(written)
    message = capsys.readouterr().err
    assert (
        message
        == f"note: README.md, config.json in {written} changed after ernie2 wrote it; using the current version.\n"
    )


def test_a_damaged_checksum_file_is_logged_and_not_raised(written, capsys):
    (written / CHECKSUMS).write_text("[]")
    warn_about_changes(written)
    assert f"{CHECKSUMS} is damaged" in capsys.readouterr().err
    assert not is_complete(written)


def test_a_folder_is_complete_while_every_file_is_there(written):
    (written / "config.json").write_text("edited")
    assert is_complete(written)
    (written / "model.safetensors").unlink()
    assert not is_complete(written)
    assert not is_complete(written / "nowhere")


def test_the_tests_leave_no_cache_outside_the_folders_that_pytest_removes(tmp_path_factory) -> None:
    assert tmp_path_factory.getbasetemp() in Path(os.environ["XDG_CACHE_HOME"]).parents
