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
from ernie2.studies.arms import Unit


def side_by_side(
    units: Sequence[Unit], carry_out: Callable[[Unit], None], at_once: int, logs: Path
) -> Generator[Unit, None, None]:
    """Carries out `units`, so many at once, and yields each when it is done; what each says goes into `logs`.

    `carry_out` is pickled, so a function of a module. Raises what a run raised, with its name said, `RunFailed` where a
    process was killed, `RunStopped` on SIGTERM or SIGHUP; then, and where the generator is closed, the other runs are
    asked to stop and waited for.
    """

    def advice(unit: Unit) -> str:
        return (
            f"It ran {unit.name}; what it said is in {log_of(unit, logs)}. The same command goes on from there; a "
            "smaller --parallel needs less memory."
        )

    work, begin = partial(_in_its_log, carry_out, logs), partial(_take_place, gpus(), max(1, cores() // at_once))
    with (
        _stopping(),
        hidden_main_module(),
        progress(f"Study, {at_once} runs at once", len(units), "runs") as bar,
        closing(run_in_processes(work, units, at_once, begin=begin, what_now=advice, graceful=True)) as ended,
    ):
        try:
            for unit in ended:
                bar.advance()
                yield unit
        except Exception as error:
            if not isinstance(error, RunStopped):
                log_warning("".join(getattr(error, "__notes__", ())[:1]))  # `_in_its_log`'s: which run it was
            raise


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return (allowed or [str(number) for number in range(count)])[:count]


def log_of(unit: Unit, logs: Path) -> Path:
    """Where a run beside others says what it does."""
    return logs / f"{unit.name.replace('/', '-')}.log"


@contextmanager
def _stopping() -> Iterator[None]:
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


def _take_place(devices: Sequence[str], threads: int, place: int) -> None:
    """In a new process: the GPU it works on, and its share of the cores."""
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    torch.set_num_threads(threads)


def _in_its_log(carry_out: Callable[[Unit], None], logs: Path, unit: Unit) -> None:
    log = log_of(unit, logs)
    try:
        with open_log(log) as file, redirect_stdout(file), redirect_stderr(file), terminal_output():
            carry_out(unit)
    except Exception as error:
        error.add_note(f"{unit.name} failed; what it said is in {log}")
        raise
