import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ernie2.errors import CheckpointError, StorageError
from ernie2.train import lock as module
from ernie2.train.lock import STALE_SECONDS, RunLock, abandoned, began, this_process

SOURCE = Path(__file__).parents[2] / "src"
HOLD = """
import sys, time
from pathlib import Path
from ernie2.train.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path, holder):
    with (
        pytest.raises(CheckpointError, match=rf"in use by process {holder.pid} on .*since 20.*stop it"),
        RunLock(tmp_path),
    ):
        pass
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid


def test_the_lock_of_a_killed_process_is_taken_over_and_said_so(tmp_path, holder, capsys):
    holder.kill()  # nobody has waited for it yet: it is a zombie
    time.sleep(0.1)
    with RunLock(tmp_path) as lock:
        assert lock.held()
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert f"left by process {holder.pid}" in capsys.readouterr().out


def test_a_lock_goes_when_it_is_left_and_leaves_nothing_else(tmp_path):
    def fail():
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
        fail()
    assert not list(tmp_path.iterdir())


def test_the_same_process_cannot_hold_a_run_twice(tmp_path):
    with RunLock(tmp_path), pytest.raises(CheckpointError, match=f"process {os.getpid()}"), RunLock(tmp_path):
        pass


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it():
    me = this_process()
    owner = {**me, "began": "another-boot/123"}
    assert abandoned(owner, 0.0, me) == "another process has its number now"
    assert abandoned({**me, "began": began(os.getpid())}, 1e9, me) is None


def test_a_lock_of_another_host_counts_until_it_was_not_touched_for_long():
    me = this_process()
    owner = {**me, "host": "elsewhere", "pid": 1}
    assert abandoned(owner, STALE_SECONDS - 1, me) is None
    assert abandoned(owner, STALE_SECONDS + 1, me) == f"not touched for {STALE_SECONDS + 1:.0f} s"


def test_the_next_attempt_of_the_same_torchrun_job_takes_over_from_another_host():
    me = {**this_process(), "job": "j7", "attempt": 1}
    assert abandoned({**me, "host": "elsewhere", "attempt": 0}, 0.0, me) is not None
    assert abandoned({**me, "host": "elsewhere", "attempt": 1}, 0.0, me) is None
    assert abandoned({**me, "host": "elsewhere", "attempt": 0, "job": "j8"}, 0.0, me) is None
    nameless = {**me, "job": "none"}
    assert abandoned({**nameless, "host": "elsewhere", "attempt": 0}, 0.0, nameless) is None


def test_a_lock_of_another_host_in_the_folder_is_refused_and_its_age_told(tmp_path):
    owner = {**this_process(), "host": "elsewhere"}
    (tmp_path / "lock").write_text(json.dumps(owner))
    with pytest.raises(CheckpointError, match=r"on elsewhere.*left behind in (300|299) s"), RunLock(tmp_path):
        pass
    old = time.time() - 2 * STALE_SECONDS
    os.utime(tmp_path / "lock", (old, old))
    with RunLock(tmp_path) as lock:
        assert lock.held()


def test_an_owner_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOUCH_SECONDS", 0.02)
    with RunLock(tmp_path) as lock:
        os.utime(lock.file, (1.0, 1.0))
        deadline = time.monotonic() + 5
        while lock.file.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.file.stat().st_mtime > 1e9


def test_a_lock_taken_over_by_another_is_neither_held_nor_deleted(tmp_path):
    with RunLock(tmp_path) as lock:
        lock.file.write_text(json.dumps({**this_process(), "host": "elsewhere"}))
        assert not lock.held()
    assert json.loads((tmp_path / "lock").read_text())["host"] == "elsewhere"


def test_of_two_that_find_a_lock_abandoned_the_slower_puts_the_new_one_back(tmp_path):
    stale = {**this_process(), "began": "long/ago"}
    new = {**this_process(), "host": "elsewhere"}
    (tmp_path / "lock").write_text(json.dumps(new))
    assert not module._set_aside(tmp_path / "lock", stale)
    assert json.loads((tmp_path / "lock").read_text()) == new


def test_a_half_written_lock_of_long_ago_does_not_hold_for_ever(tmp_path):
    (tmp_path / "lock").write_text('{"host": "els')
    with pytest.raises(CheckpointError), RunLock(tmp_path):
        pass
    os.utime(tmp_path / "lock", (1.0, 1.0))
    with RunLock(tmp_path):
        pass


def test_a_file_system_without_links_locks_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with RunLock(tmp_path), pytest.raises(CheckpointError), RunLock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(StorageError, match="cannot be written"), RunLock(tmp_path / "nowhere"):
        pass
