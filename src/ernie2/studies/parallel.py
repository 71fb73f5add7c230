"""Runs of a study in processes of their own: one a GPU, or each with its share of the cores."""

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
    """Carries out `runs`, so many at once, and yields each when it is done; what each says goes into `logs`.

    `run_one` is pickled, so a function of a module. Raises what a run raised, with its name said, `RunFailed` where a
    process was killed, `RunStopped` on SIGTERM or SIGHUP; then, and where the generator is closed, the other runs are
    asked to stop and waited for.
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
                log_warning("".join(getattr(error, "__notes__", ())[:1]))  # `_run_with_log`'s: which run it was
            raise


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return (allowed or [str(number) for number in range(count)])[:count]


def log_path(run: PlannedRun, logs: Path) -> Path:
    """Where a run beside others says what it does."""
    return logs / f"{run.name.replace('/', '-')}.log"


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Inside, SIGTERM or SIGHUP stops the runs in its processes too; only the main thread takes signals.

    SIGHUP stays ignored where it is, as under nohup.
    """

    def stop(number: int, _: Any) -> None:
        raise RunStopped(f"{signal.Signals(number).name} came.")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asking = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _assign_device(devices: Sequence[str], threads: int, place: int) -> None:
    """In a new process: the GPU it works on, and its share of the cores."""
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
