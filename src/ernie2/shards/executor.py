"""Runs the tasks of `prepare` in processes, so that a run can be killed at any moment and started again.

Finished tasks are known by datatrove's `completions` markers.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver

from datatrove.executor import LocalPipelineExecutor

from ernie2.errors import Ernie2Error
from ernie2.processes import hidden_main_module, run_in_processes
from ernie2.shards.staging import StagingDirectory
from ernie2.shards.store import ADVICE
from ernie2.storage.atomic import storage_errors

REPORT_SECONDS = 0.25
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage of `prepare` is: `done` of `total` characters; `total` is None where it is not known."""

    stage: str
    done: int
    total: int | None


def start_fork_server() -> None:
    """Start the process workers are forked from, so that its imports run beside the first stage."""
    multiprocessing.set_forkserver_preload(["ernie2.shards.pipeline"])
    with hidden_main_module():
        forkserver.ensure_running()


def run_tasks(
    stage: str,
    task: Callable[[int], None],
    sizes: Sequence[int],
    workers: int,
    staging: StagingDirectory,
    report: Callable[[int], None],
) -> None:
    """Run task 0 … len(sizes) - 1 of a stage, those that are not done yet, in `workers` processes.

    `sizes` are the characters of each task. `report` gets the characters done so far, in the calling thread. Errors of
    a worker are raised here as they were there; raises `RunFailed` where a worker was killed.
    """
    with storage_errors(staging.folder.parent, advice=ADVICE):
        # its own run() starts a server process that outlives a killed run, and logs
        markers = LocalPipelineExecutor([], len(sizes), logging_dir=str(staging.folder / "completed" / stage))
        left = markers.get_incomplete_ranks()
        staging.reset_progress()
    if not left:
        return
    done = sum(sizes) - sum(sizes[rank] for rank in left)
    perform = partial(_perform, task, staging, markers)
    advice = "Run the same command again, perhaps with fewer workers: finished work is kept."
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with storage_errors(staging.folder.parent, advice=ADVICE):
                if (processes := min(workers, len(sizes))) == 1:
                    for rank in left:
                        perform(rank)
                else:
                    for _ in run_in_processes(perform, left, processes, begin=_ignore_interrupts, advice=advice):
                        pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    with hidden_main_module():
        thread.start()
        try:
            while thread.is_alive():
                thread.join(REPORT_SECONDS)
                report(done + staging.progress())
        except BaseException:
            staging.request_stop()
            thread.join(_STOP_SECONDS)
            raise
        thread.join()
    if failed:
        error = failed[0]
        raise error.with_traceback(None) from None if isinstance(error, Ernie2Error) else error
    report(sum(sizes))


def _perform(task: Callable[[int], None], staging: StagingDirectory, markers: LocalPipelineExecutor, rank: int) -> None:
    with staging.worker_lock():
        task(rank)
    markers.mark_rank_as_completed(rank)


def _ignore_interrupts(_: int) -> None:
    """Leave stopping to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
