"""Exclusive lock of a folder: one process writes to it at a time.

The owner holds a ``flock`` on the file `FOLDER/lock` until it exits. The kernel releases it when the process ends, even
after a kill, so no lock outlives its owner. It also works between containers of one host, where process ids are not
comparable. The file describes the owner, for messages only. The owner deletes the file while it is locked, so after
locking a file a process checks that the path still leads to it.

On a file system without ``flock`` the file itself is the lock. Its owner touches it every `TOUCH_SECONDS`; it counts as
abandoned after `STALE_SECONDS` without a touch, by the clock of the file system.

A lock can be lost (deleted by hand, or its owner was suspended too long), so owners confirm it before they write.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ernie2.console import log_debug, log_warning
from ernie2.errors import FolderInUse, LockLost, StorageError
from ernie2.storage.atomic import make_folder, remove_leftovers
from ernie2.storage.removing import discard

TOUCH_SECONDS = 30.0
"""Interval between touches of a lock without ``flock``."""
STALE_SECONDS = 300.0
"""A lock without ``flock`` counts as abandoned after this time without a touch."""
WAIT_SECONDS = 0.5
"""Time limit for acquiring a lock: an owner that was just killed takes a moment to exit."""
SETTLE_SECONDS = 0.2
"""Without ``flock``, wait this long for another process that writes the lock file at the same time."""

_NO_FLOCK = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
_LEFTOVER = re.compile(r"lock\.[0-9a-f]{32}")
_MAX_BYTES = 65_536
_held: dict[Path, FolderLock] = {}


class FolderLock:
    """Context manager that holds the exclusive lock of `folder`, which is created if missing.

    `name` is the name of the lock file. `alternative` ends the error message with another option for the user
    ("run=FOLDER starts another run"). Entering raises `FolderInUse` if another process holds the lock, and
    `StorageError` if the lock file cannot be written.
    """

    def __init__(self, folder: Path, *, name: str = "lock", alternative: str = "choose another folder") -> None:
        self.folder, self.file = folder, folder / name
        self._alternative = alternative
        self._descriptor = -1
        self._owner: dict[str, Any] = {}
        self._released = Event()
        self._heartbeat: Thread | None = None

    def __enter__(self) -> FolderLock:
        self._owner = describe_process()
        if self.folder.exists() and not self.folder.is_dir():
            raise StorageError(f"{self.folder} cannot be created: it is a file. Rename it; {self._alternative}.")
        make_folder(self.folder, advice=f"Free space, or {self._alternative}.")
        try:
            self._acquire()
            self._remove_leftovers()
        except OSError as error:
            self._close()
            raise self._lock_error(error) from error
        _held[self._registry_key()] = self
        if self._owner["heartbeat"]:
            self._heartbeat = Thread(target=self._touch_repeatedly, name="ernie2-lock", daemon=True)
            self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        if self._heartbeat is not None:
            self._heartbeat.join()
        _held.pop(self._registry_key(), None)
        with suppress(OSError):
            if self.is_held():
                self.file.unlink(missing_ok=True)
        self._close()

    def is_held(self) -> bool:
        """Return whether the lock file is still the one this process wrote. Raises `OSError`."""
        return bool((_read_owner(self.file) or {}).get("token") == self._owner["token"])

    def confirm(self) -> None:
        """Raise `LockLost`, with the new owner, if the lock is no longer held."""
        try:
            if self.is_held():
                return
            new_owner = _read_owner(self.file)
        except OSError as error:
            raise self._lock_error(error) from error
        reason = "it was deleted" if new_owner is None else f"{process_name(new_owner)} holds it"
        raise LockLost(
            f"{self.file} is no longer held by this process ({self._owner['pid']} on {self._owner['host']}): {reason}. "
            "It stopped and wrote nothing more."
        )

    def _registry_key(self) -> Path:
        return self.folder.resolve() / self.file.name

    def _acquire(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            self._descriptor = self._open()
            if self._lock():
                log_debug(f"locked {self.file}")
                return
            owner, age = _read_owner(self.file), _age(self.file)
            self._close()
            if owner is None:
                continue  # just released
            if (reason := self._abandoned_reason(owner, age)) is not None:
                log_warning(f"Taking over {self.file}, left by {process_name(owner)}: {reason}.")
                self.file.unlink(missing_ok=True)  # an owner that is still running notices before it writes
            elif time.monotonic() > deadline:
                raise FolderInUse(self._in_use_message(owner, age))
            else:
                time.sleep(0.05)

    def _open(self) -> int:
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EISDIR, "it is not a regular file")
        return descriptor

    def _lock(self) -> bool:
        """Lock the open file and write the owner to it; return False if another process holds it."""
        try:
            self._owner["heartbeat"] = not flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(self._descriptor)
            if not os.path.samestat(mine, os.stat(self.file, follow_symlinks=False)):
                return False  # the previous owner deleted it between opening and locking
        except (BlockingIOError, FileNotFoundError):
            return False
        before = _read_owner(self.file)
        if mine.st_size and before is not None and (self._owner["heartbeat"] or before.get("heartbeat") is True):
            return False  # of a process without flock: decided by its age
        if mine.st_size:
            origin = f"left by {process_name(before)}" if before and "pid" in before else "damaged"
            log_warning(f"Taking over {self.file} ({origin}): no process holds it.")
        self._write_owner()
        if self._owner["heartbeat"]:
            time.sleep(SETTLE_SECONDS)  # of two processes at the same time, the last writer owns it
            return self.is_held()
        return True

    def _write_owner(self) -> None:
        content = (json.dumps(self._owner) + "\n").encode()
        os.ftruncate(self._descriptor, 0)
        try:
            os.pwrite(self._descriptor, content, 0)
        except OSError:
            self.file.unlink(missing_ok=True)
            self._close()
            raise

    def _abandoned_reason(self, owner: Mapping[str, Any], age: float) -> str | None:
        """Return why a lock counts as abandoned, or None."""
        if _is_earlier_attempt(owner, self._owner):
            return "torchrun ended that process and restarted the job"
        if self._owner.get("heartbeat") or owner.get("heartbeat") is True:
            return f"not touched for {age:.0f} s" if age > STALE_SECONDS else None
        return None

    def _in_use_message(self, owner: Mapping[str, Any], age: float) -> str:
        text = f"{self.folder} is in use by {process_name(owner)}. Wait for it or stop it; {self._alternative}."
        if self._owner.get("heartbeat") or owner.get("heartbeat") is True:
            text += (
                f" Its lock counts as abandoned in {max(0, round(STALE_SECONDS - age))} s; delete {self.file} if you "
                "know that the process has ended."
            )
        return text

    def _lock_error(self, error: OSError) -> StorageError:
        reason = "it is a folder" if error.errno == errno.EISDIR and self.file.is_dir() else error.strerror
        return StorageError(
            f"{self.file} cannot be used as the lock of {self.folder}: {reason}. Free space or move aside "
            f"what is there; {self._alternative}."
        )

    def _remove_leftovers(self) -> None:
        """Remove leftovers of killed processes: staging directories and, from version 0.1, unfinished lock files."""
        remove_leftovers(self.folder)
        for file in self.folder.iterdir():
            if _LEFTOVER.fullmatch(file.name) and file.is_file():
                discard(file)

    def _touch_repeatedly(self) -> None:
        while not self._released.wait(TOUCH_SECONDS):
            with suppress(OSError):  # the next write reports disk errors
                os.utime(self._descriptor)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def confirm_lock(folder: Path) -> None:
    """Raise `LockLost` if this process locked `folder` and lost the lock since; do nothing if it never locked it."""
    if (lock := _held.get(folder.resolve() / "lock")) is not None:
        lock.confirm()


def is_locked(file: Path) -> bool:
    """Return whether a process holds the lock `file`; False for a missing file. Raises `OSError`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB) and _age(file) <= STALE_SECONDS
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def lock_owner(folder: Path) -> str | None:
    """Return a description of the process that holds the lock of `folder`, "process 4711 on node7 (…)", or None.

    A lock that cannot be read counts as free; acquiring it reports the error.
    """
    file = folder / "lock"
    with suppress(OSError):
        return process_name(_read_owner(file) or {}) if is_locked(file) else None
    return None


@contextmanager
def shared_lock(file: Path, operation: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Hold a shared lock on `file`, which is created if missing."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def wait_until_free(file: Path) -> None:
    """Wait until no process holds `file` by `shared_lock`; return at once on a file system without ``flock``."""
    with shared_lock(file, fcntl.LOCK_EX):
        pass


def describe_process() -> dict[str, Any]:
    """Return the description of this process that a lock file contains."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]).strip(),
        "job": os.environ.get("TORCHELASTIC_RUN_ID"),
        "agent": os.getppid(),
        "attempt": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        "token": uuid.uuid4().hex,
    }


def _is_earlier_attempt(owner: Mapping[str, Any], me: Mapping[str, Any]) -> bool:
    """Return whether `owner` is an earlier attempt of the torchrun job of `me`.

    The id of a torchrun job without a name is "none"; then the same agent process on the same host is the same job.
    """
    attempt = owner.get("attempt")
    if me["job"] is None or owner.get("job") != me["job"] or not isinstance(attempt, int) or attempt >= me["attempt"]:
        return False
    return me["job"] != "none" or all(owner.get(key) == me[key] for key in ("host", "agent"))


def process_name(owner: Mapping[str, Any]) -> str:
    """Return a printable description of a lock's owner."""
    if "pid" not in owner:
        return "an unknown process"
    pid, host, command, since = (
        "".join(character if character.isprintable() else "?" for character in str(owner.get(key))[:200])
        for key in ("pid", "host", "command", "since")
    )
    return f"process {pid} on {host} (`{command}`, since {since})"


def _read_owner(file: Path) -> dict[str, Any] | None:
    """Return the owner in a lock file, {} if the content is not valid, or None if the file is missing."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _age(file: Path) -> float:
    """Return the seconds since `file` was touched, by the clock of its file system, shared by hosts; 0 if missing."""
    touched = 0.0
    try:
        touched = file.stat().st_mtime
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            return os.fstat(probe.fileno()).st_mtime - touched
    except FileNotFoundError:
        return 0.0
    except OSError:  # no space for a probe
        return time.time() - touched


def flock(descriptor: int, operation: int) -> bool:
    """Apply `operation`; return False on a file system without ``flock``. Raises `BlockingIOError` if locked."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True


def _close_in_child() -> None:
    """Close the locks that a forked child inherited, as the child would hold them longer than their owner."""
    for lock in _held.values():
        lock._close()
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
