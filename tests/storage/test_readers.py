"""Readers of a folder keep out whoever wants to replace it, and each other they do not."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from ernie2.errors import FolderInUse
from ernie2.storage.locks import describe_process
from ernie2.storage.readers import LOCK_FILE, reader_lock, writer_lock


def test_readers_share_a_folder_and_a_writer_is_refused_until_the_last_has_left(tmp_path: Path) -> None:
    with reader_lock(tmp_path):
        with reader_lock(tmp_path):
            pass
        message = rf"is being read by process {os.getpid()} on .*\. Wait for it or stop it; take another\."
        with pytest.raises(FolderInUse, match=message), writer_lock(tmp_path, alternative="take another"):
            pass
    with writer_lock(tmp_path, alternative="take another"):
        pass
    assert (tmp_path / LOCK_FILE).read_bytes() == b""


def test_only_processes_that_may_still_be_there_are_named(tmp_path: Path) -> None:
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()
    lines = [{**describe_process(), "pid": ended.pid}, {**describe_process(), "host": "elsewhere", "pid": 17}]
    with reader_lock(tmp_path):
        (tmp_path / LOCK_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines) + "[]\n{")
        with pytest.raises(FolderInUse) as refused, writer_lock(tmp_path, alternative="take another"):
            pass
    assert "process 17 on elsewhere" in str(refused.value)
    assert str(ended.pid) not in str(refused.value).split("process", 1)[1]


def test_a_forked_child_does_not_hold_the_lock_of_its_parent(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    leave = context.Event()
    with reader_lock(tmp_path):
        child = context.Process(target=leave.wait)
        child.start()
    try:
        with writer_lock(tmp_path, alternative="take another"):
            pass
    finally:
        leave.set()
        child.join()


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    with reader_lock(tmp_path / "absent"):
        pass


def test_without_flock_nothing_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with reader_lock(tmp_path), writer_lock(tmp_path, alternative="take another"):
        pass
