"""Run the tasks of `prepare` in processes, so that a run can be killed at any time and started again.

Finished tasks are recorded by datatrove's `completions` markers.
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
    """Progress of a stage of `prepare`: `done` of `total` characters; `total` is None if unknown."""

    stage: str
    done: int
    total: int | None


def start_fork_server() -> None:
    """Start the process that workers are forked from, so that its imports overlap the first stage."""
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
    """Run the unfinished tasks of 0 … len(sizes) - 1 of a stage in `workers` processes.

    `sizes`: characters of each task. `report` is called with the characters done so far, in the calling thread.
    Exceptions of a worker are raised here. Raises `RunFailed` if a worker was killed.
    """
    with storage_errors(staging.folder.parent, advice=ADVICE):
        # its own run() logs, and starts a server process that outlives a killed run
        markers = LocalPipelineExecutor([], len(sizes), logging_dir=str(staging.folder / "completed" / stage))
        pending = markers.get_incomplete_ranks()
        staging.reset_progress()
    if not pending:
        return
    done = sum(sizes) - sum(sizes[rank] for rank in pending)
    run_task = partial(_run_task, task, staging, markers)
    advice = "Run the same command again, perhaps with fewer workers: finished work is reused."
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with storage_errors(staging.folder.parent, advice=ADVICE):
                if (processes := min(workers, len(sizes))) == 1:
                    for rank in pending:
                        run_task(rank)
                else:
                    for _ in run_in_processes(run_task, pending, processes, begin=_ignore_interrupts, advice=advice):
                        pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
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
    if errors:
        error = errors[0]
        raise error.with_traceback(None) from None if isinstance(error, Ernie2Error) else error
    report(sum(sizes))


def _run_task(
    task: Callable[[int], None], staging: StagingDirectory, markers: LocalPipelineExecutor, rank: int
) -> None:
    with staging.worker_lock():
        task(rank)
    markers.mark_rank_as_completed(rank)


def _ignore_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
