"""The lock of a run folder: two processes never train into the same one.

`RUN/lock` names its owner: host, process, when that began, its command. It appears by an atomic link, so of two
processes one gets it, on NFS too, where locks of fcntl cannot be relied on. A process that was killed leaves it behind;
such a lock is recognised and taken over:

* same host: its process is gone, or another process has its number now;
* same job of torchrun, begun again (`TORCHELASTIC_RESTART_COUNT`): torchrun has ended the earlier attempt;
* other host: its owner has not touched it for `STALE_SECONDS`. Ages are compared on the clock of the file system.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

from ernie2.errors import CheckpointError, StorageError
from ernie2.progress import say

TOUCH_SECONDS = 30.0
"""How often the owner of a lock touches it."""
STALE_SECONDS = 300.0
"""A lock of another host that was not touched for so long has lost its owner."""
_TRIES = 5


class RunLock:
    """A context manager: inside it, this process alone writes into `run`.

    Entering raises `CheckpointError` where another process holds the lock, `StorageError` where none can be written.
    """

    def __init__(self, run: Path) -> None:
        self.file = run / "lock"
        self._done = Event()
        self._toucher = Thread(target=self._touch, name="ernie2-lock", daemon=True)
        self._owner: dict[str, Any] = {}

    def __enter__(self) -> RunLock:
        self._owner = this_process()
        for _ in range(_TRIES):
            if self._create():
                self._toucher.start()
                return self
            owner, age = _read(self.file)
            if owner is None:
                continue  # it went away in this moment
            if (why := abandoned(owner, age, self._owner)) is None:
                raise CheckpointError(self._held_by(owner, age))
            if _set_aside(self.file, owner):
                say(f"Taking over {self.file}, left by process {owner.get('pid')} on {owner.get('host')}: {why}.")
        raise CheckpointError(f"{self.file}: several processes want this run at once. Start one of them.")

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._toucher.join()
        if self.held():
            self.file.unlink(missing_ok=True)

    def held(self) -> bool:
        """Whether the lock is still this process's own."""
        with suppress(OSError):
            return _read(self.file)[0] == self._owner
        return False

    def _create(self) -> bool:
        """Makes the lock whole or not at all; False where there is one."""
        aside = self.file.with_name(f"lock.{uuid.uuid4().hex}")
        try:
            aside.write_text(json.dumps(self._owner), encoding="utf-8")
            try:
                os.link(aside, self.file)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                return _create_unlinked(self.file, self._owner)
            return True
        except OSError as error:
            raise StorageError(
                f"{self.file} cannot be written: {error.strerror}. Free space, or name another folder with run=FOLDER."
            ) from error
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._done.wait(TOUCH_SECONDS):
            with suppress(OSError):  # a full or absent disk shows itself where something is written
                os.utime(self.file)

    def _held_by(self, owner: Mapping[str, Any], age: float) -> str:
        text = (
            f"{self.file.parent} is in use by process {owner.get('pid')} on {owner.get('host')} "
            f"(`{owner.get('command')}`, since {owner.get('since')}). Wait for it or stop it"
        )
        if owner.get("host") == self._owner["host"]:
            return text + "; run=FOLDER starts another run."
        left = max(0, round(STALE_SECONDS - age))
        return (
            f"{text}. If that host is gone, the lock counts as left behind in {left} s; delete {self.file} if you know "
            "that the process has ended."
        )


def this_process() -> dict[str, Any]:
    """What a lock says of its owner."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": began(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]).strip(),
        "job": os.environ.get("TORCHELASTIC_RUN_ID"),
        "attempt": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
    }


def abandoned(owner: Mapping[str, Any], age: float, me: Mapping[str, Any]) -> str | None:
    """Why nobody holds the lock of `owner`, touched `age` seconds ago; None where somebody does.

    `me`: `this_process()`.
    """
    if owner.get("host") == me["host"]:
        now = began(int(owner.get("pid", 0)))
        if now is None:
            return "that process is gone"
        if owner.get("began") not in (None, now):
            return "another process has its number now"
        return None
    if owner.get("job") not in (None, "none") and owner["job"] == me["job"] and owner["attempt"] < me["attempt"]:
        return "torchrun ended it and begins again"
    return f"not touched for {age:.0f} s" if age > STALE_SECONDS else None


def began(pid: int) -> str | None:
    """Something that differs between two processes that had this number one after the other; None where it is free."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if Path("/proc/self").exists() else _alive(pid)
    after_name = stat.rpartition(")")[2].split()
    if after_name[0] in "ZX":  # ended, though nobody has taken note
        return None
    return f"{boot}/{after_name[19]}"  # field 22 of proc(5): clock ticks from boot to the start


def _alive(pid: int) -> str | None:
    """`began` where there is no /proc: whether the process lives is all that can be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "alive"


def _read(file: Path) -> tuple[dict[str, Any] | None, float]:
    """The owner a lock names (None: there is no lock) and the seconds since it was touched."""
    try:
        text = file.read_text(encoding="utf-8")
        touched = file.stat().st_mtime
    except FileNotFoundError:
        return None, 0.0
    probe = file.with_name(f"lock.{uuid.uuid4().hex}")
    try:
        probe.touch()
        now = probe.stat().st_mtime  # the clock of the file system, which hosts share
    except OSError:
        now = time.time()
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    try:
        owner = json.loads(text)
    except ValueError:
        owner = {}
    return (owner if isinstance(owner, dict) else {}), now - touched


def _set_aside(file: Path, owner: Mapping[str, Any]) -> bool:
    """Takes away the lock that `owner` left; False where another process was faster, whose lock is put back."""
    aside = file.with_name(f"lock.{uuid.uuid4().hex}")
    try:
        os.rename(file, aside)
    except FileNotFoundError:
        return False
    ours = _read(aside)[0] == owner
    if not ours:
        with suppress(OSError):
            os.link(aside, file)
    aside.unlink(missing_ok=True)
    return ours


def _create_unlinked(file: Path, owner: Mapping[str, Any]) -> bool:
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(json.dumps(owner))
    return True
