"""Running steps with datatrove: quietly, with progress, and so that a run can be killed at any moment and started
again.

Finished tasks are known by datatrove's `completions` markers. Beside that, a `Workplace` keeps two runs from working in
one folder, also where one was killed and workers it left behind are still at it: they notice and stop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.utils import logging as datatrove_logging

from ernie2.errors import Ernie2Error
from ernie2.processes import done_in_processes, without_main
from ernie2.shards.store import WHAT_NOW
from ernie2.storage.atomic import storage_errors
from ernie2.storage.locks import FolderLock, is_locked, shared_lock, wait_until_free
from ernie2.storage.removing import discard, remove

POLL_SECONDS = 0.05
REPORT_SECONDS = 0.25
_RECORD_BYTES = 8
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage of `prepare` is: `done` of `total` characters; `total` is None where it is not known."""

    stage: str
    done: int
    total: int | None


class Stopped(Exception):
    """The run that this worker belongs to has ended or was asked to stop."""


class Workplace:
    """The folder a run of `prepare` works in, and what its processes tell each other. It can be sent to another
    process.

    Two files beside it are locked: `.prepare.lock` by the run that owns the shards folder, `.prepare.busy` by each
    worker. Both locks end with their process, however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = os.getpid()
        self._lock_file = folder.parent / ".prepare.lock"
        self._busy_file = folder.parent / ".prepare.busy"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the shards folder while this lasts. Raises `FolderInUse` where another process does."""
        with storage_errors(self.folder.parent, what_now=WHAT_NOW):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        with FolderLock(self.folder.parent, name=self._lock_file.name, otherwise="choose another shards.folder"):
            with storage_errors(self.folder.parent, what_now=WHAT_NOW):
                wait_until_free(self._busy_file)  # workers that a killed run left behind hold it until they notice
                self.folder.mkdir(exist_ok=True)  # not before: the run that held the lock removes it at its end
                remove(self.folder / "stop")
            try:
                yield
            finally:
                discard(self._busy_file)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around what a worker does: keeps the next owner waiting, and turns failed writes into `StorageError`."""
        with nullcontext() if os.getpid() == self.owner else shared_lock(self._busy_file):
            self.check()
            with storage_errors(self.folder.parent, what_now=WHAT_NOW):
                yield

    def check(self) -> None:
        """Raises `Stopped` where the owner is gone or has asked to stop."""
        if (self.folder / "stop").exists():
            raise Stopped
        if os.getpid() == self.owner:
            return
        if not is_locked(self._lock_file):
            raise Stopped

    def ask_to_stop(self) -> None:
        """Lets all workers stop at their next `check`."""
        with suppress(OSError):  # workers end with their owner at the latest
            (self.folder / "stop").touch()

    def advance(self, characters: int) -> None:
        """Records that so many more characters are done, and checks whether to go on."""
        with (self.folder / "progress").open("ab", buffering=0) as records:
            records.write(characters.to_bytes(_RECORD_BYTES, "little"))
        self.check()

    def begin_progress(self) -> None:
        """Forgets the records of the stage before."""
        (self.folder / "progress").write_bytes(b"")

    def progress(self) -> int:
        """Characters recorded since `begin_progress`."""
        import numpy as np

        raw = (self.folder / "progress").read_bytes()
        return int(np.frombuffer(raw[: len(raw) // _RECORD_BYTES * _RECORD_BYTES], dtype="<u8").sum())


def warm_up() -> None:
    """Starts the process workers are forked from, so that its imports run beside the first stage."""
    multiprocessing.set_forkserver_preload(["ernie2.shards.steps"])
    with without_main():
        forkserver.ensure_running()


def run_tasks(
    step: PipelineStep, sizes: Sequence[int], workers: int, jobs: Path, place: Workplace, report: Callable[[int], None]
) -> None:
    """Runs task 0 … len(sizes) - 1 of `step` with datatrove, those that are not done yet, on `workers` processes.

    `sizes` are the characters of each task and `jobs` is the logging folder; `report` is told the characters done. It
    is called from the calling thread. Errors of a worker are raised here as they were there; raises `RunFailed` where a
    worker was killed.
    """
    with storage_errors(place.folder.parent, what_now=WHAT_NOW):
        executor = _Executor(
            [step], tasks=len(sizes), workers=min(workers, len(sizes)), logging_dir=_JobFolder(str(jobs))
        )
        left = executor.get_incomplete_ranks()
        place.begin_progress()
    if not left:
        return
    done = sum(sizes) - sum(sizes[rank] for rank in left)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with storage_errors(place.folder.parent, what_now=WHAT_NOW):
                executor.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    with _quiet(), without_main():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(REPORT_SECONDS)
                report(done + place.progress())
        except BaseException:
            place.ask_to_stop()
            thread.join(_STOP_SECONDS)
            raise
        thread.join()
    if failed:
        error = failed[0]
        raise error.with_traceback(None) from None if isinstance(error, Ernie2Error) else error
    report(sum(sizes))


class _Executor(LocalPipelineExecutor):  # type: ignore[misc]
    """datatrove's executor without its `Manager`, whose server process outlives a killed run, and without console logs.

    Workers end as soon as the process that started them is gone.
    """

    pipeline: list[PipelineStep]

    def run(self) -> None:
        """Run every task that is not completed."""
        self.save_executor_as_json()
        ranks = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in ranks:
                self._run_alone(rank)
            return
        advice = "Run the same command again, perhaps with fewer workers: finished work is kept."
        for _ in done_in_processes(self._run_alone, ranks, self.workers, begin=_begin_worker, what_now=advice):
            pass

    def _run_alone(self, rank: int) -> None:
        """Run one task on a pipeline of its own, so that its statistics are its own."""
        pipeline = self.pipeline
        self.pipeline = deepcopy(pipeline)
        try:
            self._run_for_rank(rank)
        finally:
            self.pipeline = pipeline


def _begin_worker() -> None:
    """Leave stopping to the process that owns the workers, and keep the console free of logs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    datatrove_logging.sys = SimpleNamespace(stderr=_Nowhere())


class _JobFolder(DataFolder):  # type: ignore[misc]
    """datatrove's logging folder; on a full disk its logs end, and the work itself says what is wrong."""

    def open(self, path: str, *arguments: Any, **named: Any) -> Any:
        file = super().open(path, *arguments, **named)
        return _Log(file) if path.startswith("logs/") else file


class _Log:
    """A log file that stops where the disk is full."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class _Nowhere:
    """A stream nobody reads."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps datatrove's log off the console, where it adds itself for every task; its files are still written."""
    real = datatrove_logging.sys
    datatrove_logging.sys = SimpleNamespace(stderr=_Nowhere())
    datatrove_logging.setup_default_logger()
    try:
        yield
    finally:
        datatrove_logging.sys = real
        datatrove_logging.setup_default_logger()
