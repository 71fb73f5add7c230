"""Run several runs of a study at once, each in its own process, with one GPU or a share of the cores."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ernie2.console import log_warning, progress, terminal_output
from ernie2.errors import RunStopped
from ernie2.processes import cores, hidden_main_module, run_in_processes
from ernie2.storage.line_files import open_log
from ernie2.studies.methods import PlannedRun


def run_parallel(
    runs: Sequence[PlannedRun], run_one: Callable[[PlannedRun], None], workers: int, logs: Path
) -> Generator[PlannedRun, None, None]:
    """Execute `runs`, `workers` at a time, and yield each when it is done; their output goes to files in `logs`.

    `run_one` is pickled, so it must be a module-level function. An exception of a run is raised again after its name is
    logged. Raises `RunFailed` if a process was killed, `RunStopped` on SIGTERM or SIGHUP. On any error, and when the
    generator is closed, the other runs are stopped and awaited.
    """

    def advice(run: PlannedRun) -> str:
        return (
            f"It ran {run.name}; its output is in {log_path(run, logs)}. Run the same command again to continue; a "
            "smaller --parallel needs less memory."
        )

    work, begin = (
        partial(_run_with_log, run_one, logs),
        partial(_assign_device, visible_gpus(), max(1, cores() // workers)),
    )
    with (
        _stop_on_signals(),
        hidden_main_module(),
        progress(f"Study, {workers} runs at once", len(runs), "runs") as bar,
        closing(run_in_processes(work, runs, workers, begin=begin, advice=advice, graceful=True)) as ended,
    ):
        try:
            for run in ended:
                bar.advance()
                yield run
        except Exception as error:
            if not isinstance(error, RunStopped):
                log_warning("".join(getattr(error, "__notes__", ())[:1]))  # from `_run_with_log`: the name of the run
            raise


def visible_gpus() -> list[str]:
    """Return the GPUs this process may use, as in CUDA_VISIBLE_DEVICES."""
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return (allowed or [str(number) for number in range(count)])[:count]


def log_path(run: PlannedRun, logs: Path) -> Path:
    """Return the log file of a run."""
    return logs / f"{run.name.replace('/', '-')}.log"


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Raise `RunStopped` on SIGTERM or SIGHUP, in the main thread only; an ignored signal, as under nohup, stays
    ignored."""

    def stop(number: int, _: Any) -> None:
        raise RunStopped(f"{signal.Signals(number).name} received.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _assign_device(devices: Sequence[str], threads: int, place: int) -> None:
    """Set the GPU and the number of threads of a new process."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    torch.set_num_threads(threads)


def _run_with_log(run_one: Callable[[PlannedRun], None], logs: Path, run: PlannedRun) -> None:
    log = log_path(run, logs)
    try:
        with open_log(log) as file, redirect_stdout(file), redirect_stderr(file), terminal_output():
            run_one(run)
    except Exception as error:
        error.add_note(f"{run.name} failed; its output is in {log}")
        raise
