"""The staging directory of `prepare`: its locks, and the progress that workers report.

Two runs never work in one folder. If a run was killed, its remaining workers notice that and stop.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np

from ernie2.errors import StorageError
from ernie2.shards.store import ADVICE
from ernie2.storage.atomic import make_folder, storage_errors, write_bytes
from ernie2.storage.line_files import append_bytes
from ernie2.storage.locks import FolderLock, is_locked, shared_lock, wait_until_free
from ernie2.storage.removing import discard, remove

_RECORD_BYTES = 8


class Stopped(Exception):
    """The run of this worker has ended or requested a stop."""


class StagingDirectory:
    """The folder in which one run of `prepare` builds a dataset. Can be pickled.

    Two files beside it are locked: `.prepare.lock` by the run that owns the shards folder, `.prepare.busy` by each
    worker. The locks end with their processes, also with killed ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = os.getpid()
        self._lock_file = folder.parent / ".prepare.lock"
        self._busy_file = folder.parent / ".prepare.busy"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the shards folder. Raises `FolderInUse` if another process has locked it."""
        with FolderLock(self.folder.parent, name=self._lock_file.name, alternative="choose another shards.folder"):
            with storage_errors(self.folder.parent, advice=ADVICE):
                wait_until_free(self._busy_file)  # locked by the workers of a killed run until they stop
                make_folder(self.folder)  # after locking: the run before removes it at its end
                remove(self.folder / "stop")
            try:
                yield
            finally:
                discard(self._busy_file)

    @contextmanager
    def worker_lock(self) -> Iterator[None]:
        """Lock a worker's file, on which the next run waits."""
        with nullcontext() if os.getpid() == self.owner else shared_lock(self._busy_file):
            self.check()
            yield

    def check(self) -> None:
        """Raise `Stopped` if the owning run has ended or requested a stop."""
        if (self.folder / "stop").exists() or (os.getpid() != self.owner and not is_locked(self._lock_file)):
            raise Stopped

    def request_stop(self) -> None:
        """Make all workers stop at their next `check`."""
        with suppress(StorageError):  # workers stop with their owner at the latest
            write_bytes(self.folder / "stop", b"")

    def advance(self, characters: int) -> None:
        """Record that `characters` more are done, and `check`."""
        append_bytes(self.folder / "progress", characters.to_bytes(_RECORD_BYTES, "little"))
        self.check()

    def reset_progress(self) -> None:
        """Discard the progress of the stage before."""
        write_bytes(self.folder / "progress", b"", advice=ADVICE)

    def progress(self) -> int:
        """Return the characters recorded since `reset_progress`."""
        raw = (self.folder / "progress").read_bytes()
        return int(np.frombuffer(raw[: len(raw) // _RECORD_BYTES * _RECORD_BYTES], dtype="<u8").sum())
