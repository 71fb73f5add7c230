"""The lock of a folder: of all processes that want to write into it for long, one does.

The owner holds a ``flock`` on the file `FOLDER/lock` for its whole life. The kernel releases it when the process ends,
however it ends, so no lock outlives its owner, and it works between containers of one host, whose process numbers say
nothing about each other. The file describes the owner for messages only. It is deleted while it is still locked, so
whoever locks a file makes sure afterwards that it is the one under that name.

Where the file system has no ``flock``, the file itself is the lock: its owner touches it every `TOUCH_SECONDS`, and it
counts as abandoned when it was not touched for `STALE_SECONDS`, by the clock of the file system.

A lock can be lost (deleted by hand, or its owner was frozen for too long), so owners confirm it before they write.
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
"""How often an owner touches its lock where the file system has no ``flock``."""
STALE_SECONDS = 300.0
"""There, a lock that was not touched for so long has lost its owner."""
WAIT_SECONDS = 0.5
"""How long a lock is tried for: an owner that was just killed needs a moment to end."""
SETTLE_SECONDS = 0.2
"""How long an owner that has no ``flock`` waits for another that wrote at the same moment."""

_NO_FLOCK = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}
_LEFTOVER = re.compile(r"lock\.[0-9a-f]{32}")
_MOST_BYTES = 65_536
_held: dict[Path, FolderLock] = {}


class FolderLock:
    """A context manager: inside it, this process alone writes into `folder`, which is made if missing.

    `name` is that of the lock file. `otherwise` tells a user who is refused what else can be done ("run=FOLDER starts
    another run"). Entering raises `FolderInUse` where another process holds the lock, and `StorageError` where none can
    be written.
    """

    def __init__(self, folder: Path, *, name: str = "lock", otherwise: str = "choose another folder") -> None:
        self.folder, self.file = folder, folder / name
        self._otherwise = otherwise
        self._descriptor = -1
        self._owner: dict[str, Any] = {}
        self._left = Event()
        self._toucher: Thread | None = None

    def __enter__(self) -> FolderLock:
        self._owner = describe_process()
        if self.folder.exists() and not self.folder.is_dir():
            raise StorageError(f"{self.folder} cannot be made: it is a file. Rename it; {self._otherwise}.")
        make_folder(self.folder, what_now=f"Free space, or {self._otherwise}.")
        try:
            self._acquire()
            self._remove_leftovers()
        except OSError as error:
            self._close()
            raise self._unusable(error) from error
        _held[self._key()] = self
        if self._owner["heartbeat"]:
            self._toucher = Thread(target=self._touch, name="ernie2-lock", daemon=True)
            self._toucher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._toucher is not None:
            self._toucher.join()
        _held.pop(self._key(), None)
        with suppress(OSError):
            if self.is_held():
                self.file.unlink(missing_ok=True)
        self._close()

    def is_held(self) -> bool:
        """Whether the lock file is still the one that this process wrote. Raises `OSError`."""
        return bool((_read(self.file) or {}).get("token") == self._owner["token"])

    def confirm(self) -> None:
        """Raise `LockLost`, naming the new owner, unless the lock is still held."""
        try:
            if self.is_held():
                return
            now = _read(self.file)
        except OSError as error:
            raise self._unusable(error) from error
        who = "it was deleted" if now is None else f"{process_name(now)} has it now"
        raise LockLost(
            f"{self.file} is no longer held by this process ({self._owner['pid']} on {self._owner['host']}): {who}. "
            "It stopped and wrote nothing more."
        )

    def _key(self) -> Path:
        return self.folder.resolve() / self.file.name

    def _acquire(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            self._descriptor = self._open()
            if self._lock():
                log_debug(f"locked {self.file}")
                return
            owner, age = _read(self.file), _age(self.file)
            self._close()
            if owner is None:
                continue  # released in this moment
            if (why := self._abandoned(owner, age)) is not None:
                log_warning(f"Taking over {self.file}, left by {process_name(owner)}: {why}.")
                self.file.unlink(missing_ok=True)  # its owner, should there be one, finds that out before it writes
            elif time.monotonic() > until:
                raise FolderInUse(self._refusal(owner, age))
            else:
                time.sleep(0.05)

    def _open(self) -> int:
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EISDIR, "it is not a regular file")
        return descriptor

    def _lock(self) -> bool:
        """Lock the open file and describe the owner in it; False where somebody else holds it."""
        try:
            self._owner["heartbeat"] = not flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(self._descriptor)
            if not os.path.samestat(mine, os.stat(self.file, follow_symlinks=False)):
                return False  # its owner deleted it between opening and locking
        except (BlockingIOError, FileNotFoundError):
            return False
        before = _read(self.file)
        if mine.st_size and before is not None and (self._owner["heartbeat"] or before.get("heartbeat") is True):
            return False  # of a process without flock: its age decides
        if mine.st_size:
            left = f"left by {process_name(before)}" if before and "pid" in before else "damaged"
            log_warning(f"Taking over {self.file} ({left}): no process holds it.")
        self._describe()
        if self._owner["heartbeat"]:
            time.sleep(SETTLE_SECONDS)  # of two that found it free, the last to describe itself has it
            return self.is_held()
        return True

    def _describe(self) -> None:
        content = (json.dumps(self._owner) + "\n").encode()
        os.ftruncate(self._descriptor, 0)
        try:
            os.pwrite(self._descriptor, content, 0)
        except OSError:
            self.file.unlink(missing_ok=True)
            self._close()
            raise

    def _abandoned(self, owner: Mapping[str, Any], age: float) -> str | None:
        """Why a lock that could not be had counts as abandoned; None where it does not."""
        if _is_earlier_attempt(owner, self._owner):
            return "torchrun ended that process and starts again"
        if self._owner.get("heartbeat") or owner.get("heartbeat") is True:
            return f"not touched for {age:.0f} s" if age > STALE_SECONDS else None
        return None

    def _refusal(self, owner: Mapping[str, Any], age: float) -> str:
        text = f"{self.folder} is in use by {process_name(owner)}. Wait for it or stop it; {self._otherwise}."
        if self._owner.get("heartbeat") or owner.get("heartbeat") is True:
            text += (
                f" Its lock counts as abandoned in {max(0, round(STALE_SECONDS - age))} s; delete {self.file} if you "
                "know that the process has ended."
            )
        return text

    def _unusable(self, error: OSError) -> StorageError:
        reason = "it is a folder" if error.errno == errno.EISDIR and self.file.is_dir() else error.strerror
        return StorageError(
            f"{self.file} cannot be used as the lock of {self.folder}: {reason}. Free space, or move aside what is in "
            f"its place; {self._otherwise}."
        )

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left: staging folders, and of version 0.1 files of a lock in the making."""
        remove_leftovers(self.folder)
        for file in self.folder.iterdir():
            if _LEFTOVER.fullmatch(file.name) and file.is_file():
                discard(file)

    def _touch(self) -> None:
        while not self._left.wait(TOUCH_SECONDS):
            with suppress(OSError):  # a full or absent disk shows itself where something is written
                os.utime(self._descriptor)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def confirm_lock(folder: Path) -> None:
    """Raise `LockLost` where this process locked `folder` and has lost it since; do nothing where it never did."""
    if (lock := _held.get(folder.resolve() / "lock")) is not None:
        lock.confirm()


def is_locked(file: Path) -> bool:
    """Whether some process holds the lock `file`. Raises `OSError` other than for a missing file."""
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


def owner_of(folder: Path) -> str | None:
    """Describe the process that holds the lock of `folder`: "process 4711 on node7 (…)"; None where none does.

    A lock that cannot be read counts as free: whoever wants to write into the folder finds out when locking it.
    """
    file = folder / "lock"
    with suppress(OSError):
        return process_name(_read(file) or {}) if is_locked(file) else None
    return None


@contextmanager
def shared_lock(file: Path, operation: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Hold the lock `file`, which is made where there is none, together with all who hold it like this."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def wait_until_free(file: Path) -> None:
    """Wait until no process holds `file` by `shared_lock`; does not wait where the file system has no ``flock``."""
    with shared_lock(file, fcntl.LOCK_EX):
        pass


def describe_process() -> dict[str, Any]:
    """Return what a lock says about its owner: this process."""
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
    """Whether `owner` is an earlier attempt of the torchrun job that `me` belongs to.

    torchrun calls every job without a name "none"; the same agent process on the same host is the same job, then.
    """
    attempt = owner.get("attempt")
    if me["job"] is None or owner.get("job") != me["job"] or not isinstance(attempt, int) or attempt >= me["attempt"]:
        return False
    return me["job"] != "none" or all(owner.get(key) == me[key] for key in ("host", "agent"))


def process_name(owner: Mapping[str, Any]) -> str:
    """Return a process that described itself in words, safe to print."""
    if "pid" not in owner:
        return "a process that its lock does not name"
    pid, host, command, since = (
        "".join(character if character.isprintable() else "?" for character in str(owner.get(key))[:200])
        for key in ("pid", "host", "command", "since")
    )
    return f"process {pid} on {host} (`{command}`, since {since})"


def _read(file: Path) -> dict[str, Any] | None:
    """What a lock file says; {} where that is not a description of an owner, None where there is no file."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        content = os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _age(file: Path) -> float:
    """Seconds since `file` was touched, by the clock of its file system, which hosts share; 0 where it is gone."""
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
    """Apply `operation`; False where the file system has no ``flock``. Raises `BlockingIOError` where it is held."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True


def _forget_in_child() -> None:
    """Close the locks that a forked child inherited: they would outlive their owner in it."""
    for lock in _held.values():
        lock._close()
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
