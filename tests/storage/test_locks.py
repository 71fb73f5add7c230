import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from child_processes import wait_until
from ernie2.errors import FolderInUse, LockLost, StorageError
from ernie2.storage import locks
from ernie2.storage.locks import STALE_SECONDS, FolderLock, confirm_lock, describe_process, is_locked, lock_owner

SOURCE = Path(__file__).parents[2] / "src"
HOLD = """
import sys, time
from pathlib import Path
from ernie2.storage.locks import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
TAKE = """
import sys
from pathlib import Path
from ernie2.errors import FolderInUse
from ernie2.storage.locks import FolderLock
try:
    with FolderLock(Path(sys.argv[1])):
        print("taken")
except FolderInUse as error:
    print("refused:", error)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}


@pytest.fixture
def holder(tmp_path, start_process):
    """Another process that holds the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = start_process(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has no flock."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "SETTLE_SECONDS", 0.0)


def lock_of_another(folder, **facts):
    owner = {**describe_process(), "host": "elsewhere", "pid": 17, "heartbeat": True, **facts}
    (folder / "lock").write_text(json.dumps(owner))
    return owner


def enter(folder):
    with FolderLock(folder):
        pass


def test_a_second_process_is_refused_with_the_owner_in_the_message(tmp_path, holder):
    with pytest.raises(FolderInUse, match=rf"in use by process {holder.pid} on .*since 20.*; choose another folder"):
        enter(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid
    assert is_locked(tmp_path / "lock")


def test_a_process_in_another_pid_namespace_is_refused(tmp_path, holder):
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    try:
        trial = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this machine")
    if trial.returncode:
        pytest.skip(f"no PID namespaces here: {trial.stderr.strip()}")
    command = [*unshare, sys.executable, "-c", TAKE, str(tmp_path)]
    message = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert message.startswith(f"refused: {tmp_path} is in use by process {holder.pid} on ")
    holder.kill()
    holder.wait()
    message = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert message.endswith("taken\n")


def test_the_lock_of_a_killed_process_is_replaced_with_a_warning(tmp_path, holder, capsys):
    holder.kill()  # nobody waits for it: it stays a zombie
    with FolderLock(tmp_path) as lock:
        assert lock.is_held()
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    message = capsys.readouterr().err
    assert message.startswith(f"Taking over {tmp_path / 'lock'} (left by process {holder.pid} on ")
    assert message.endswith("no process holds it.\n")
    assert message.count("\n") == 1


def test_a_lock_goes_when_it_is_left_and_leaves_nothing_else(tmp_path):
    def fail():
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), FolderLock(tmp_path):
        fail()
    assert not list(tmp_path.iterdir())
    assert not is_locked(tmp_path / "lock")


def test_a_lock_deleted_by_its_owner_between_opening_and_locking_is_not_acquired(tmp_path, monkeypatch):
    real, deleted = fcntl.flock, []

    def delete_first(descriptor, operation):
        if not deleted:
            deleted.append((tmp_path / "lock").unlink())
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    with FolderLock(tmp_path) as lock:
        assert lock.is_held()
        with pytest.raises(FolderInUse):
            enter(tmp_path)


def test_the_same_process_cannot_hold_a_folder_twice(tmp_path):
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
        enter(tmp_path)


def test_a_forked_child_that_outlives_the_owner_does_not_keep_the_lock(tmp_path):
    read, write = os.pipe()
    lock = FolderLock(tmp_path).__enter__()
    child = os.fork()
    if not child:
        os.read(read, 1)
        os._exit(0)
    lock._close()  # as the kernel does for a killed owner
    enter(tmp_path)
    os.write(write, b"x")
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"host": "els', b"\x00\xff\x80", b"[" * 50_000])
def test_a_damaged_lock_that_nobody_holds_is_replaced_with_a_warning(tmp_path, content, capsys):
    (tmp_path / "lock").write_bytes(content)
    enter(tmp_path)
    expected = f"Taking over {tmp_path / 'lock'} (damaged): no process holds it.\n" if content else ""
    assert capsys.readouterr().err == expected


def test_what_a_lock_says_reaches_the_terminal_without_control_characters(tmp_path, capsys):
    (tmp_path / "lock").write_text(json.dumps({"pid": 4, "host": "a\x1b[31mb\n", "command": "c", "since": "d"}))
    enter(tmp_path)
    assert "process 4 on a?[31mb? (`c`, since d)" in capsys.readouterr().err


def test_a_folder_a_link_or_a_pipe_in_the_place_of_a_lock_is_refused_in_one_line(tmp_path):
    lock = tmp_path / "lock"
    lock.mkdir()
    with pytest.raises(StorageError, match=r"lock cannot be used as the lock of .*: it is a folder\. .* move aside"):
        enter(tmp_path)
    lock.rmdir()
    lock.symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="cannot be used as the lock"):
        enter(tmp_path)
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(StorageError, match="cannot be used as the lock"):
        enter(tmp_path)
    assert lock.is_fifo()
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file cannot be created: it is a file\. Rename it; choose another folder"):
        enter(tmp_path / "file")


def test_unfinished_lock_files_of_version_0_1_are_removed(tmp_path):
    (tmp_path / f"lock.{'0a' * 16}").write_text("{}")
    (tmp_path / "lock.txt").write_text("of a user")
    enter(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["lock.txt"]


def test_confirming_a_lost_lock_names_the_new_owner_and_leaves_its_file(tmp_path):
    with FolderLock(tmp_path):
        confirm_lock(tmp_path)
        confirm_lock(tmp_path / "..")  # never locked
        lock_of_another(tmp_path)
        with pytest.raises(LockLost, match=r"no longer held by this process .*: process 17 on elsewhere .* holds it"):
            confirm_lock(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["pid"] == 17
    confirm_lock(tmp_path)


def test_confirming_a_deleted_lock_raises_an_error(tmp_path):
    with FolderLock(tmp_path):
        (tmp_path / "lock").unlink()
        with pytest.raises(LockLost, match="it was deleted"):
            confirm_lock(tmp_path)


def test_the_next_attempt_of_a_torchrun_job_gets_the_lock_of_the_one_before(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "j7")
    with FolderLock(tmp_path) as first:
        with pytest.raises(FolderInUse):
            enter(tmp_path)  # the same attempt
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        with FolderLock(tmp_path) as second:
            assert second.is_held()
            with pytest.raises(LockLost):
                first.confirm()
    assert "torchrun ended that process and restarted the job" in capsys.readouterr().err


def test_without_flock_a_lock_counts_until_it_was_not_touched_for_long(tmp_path, without_flock, capsys):
    lock_of_another(tmp_path)
    with pytest.raises(FolderInUse, match=r"elsewhere.*abandoned in (300|299) s; delete .*lock if you know"):
        enter(tmp_path)
    old = time.time() - 2 * STALE_SECONDS
    os.utime(tmp_path / "lock", (old, old))
    with FolderLock(tmp_path) as lock:
        assert lock.is_held()
    assert "process 17 on elsewhere" in capsys.readouterr().err


def test_a_lock_held_by_touching_also_counts_for_processes_with_flock(tmp_path):
    lock_of_another(tmp_path)
    with pytest.raises(FolderInUse, match="abandoned in"):
        enter(tmp_path)


def test_without_flock_a_damaged_lock_does_not_hold_for_ever(tmp_path, without_flock):
    (tmp_path / "lock").write_text('{"host": "els')
    with pytest.raises(FolderInUse, match="an unknown process"):
        enter(tmp_path)
    os.utime(tmp_path / "lock", (1.0, 1.0))
    enter(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_flock_an_owner_touches_its_lock(tmp_path, without_flock, monkeypatch):
    monkeypatch.setattr(locks, "TOUCH_SECONDS", 0.02)
    with FolderLock(tmp_path) as lock:
        os.utime(lock.file, (1.0, 1.0))
        wait_until(lambda: lock.file.stat().st_mtime >= 2)
        assert lock.file.stat().st_mtime > 1e9
        assert is_locked(lock.file)


def test_the_owner_of_a_locked_folder_is_named_and_a_free_one_has_none(tmp_path, holder):
    assert lock_owner(tmp_path).startswith(f"process {holder.pid} on ")
    holder.kill()
    holder.wait()
    assert lock_owner(tmp_path) is None
    assert lock_owner(tmp_path / "nowhere") is None
    (tmp_path / "file").touch()
    assert lock_owner(tmp_path / "file") is None
