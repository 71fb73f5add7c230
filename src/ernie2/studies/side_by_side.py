"""Runs of a study in processes of their own: one a GPU, or each with its share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from ernie2.console import on_terminal, progress, say
from ernie2.errors import RunFailed, RunStopped
from ernie2.processes import cores, end_with_parent, without_main
from ernie2.studies.arms import Unit


def side_by_side(
    units: Sequence[Unit], carry_out: Callable[[Unit], None], at_once: int, logs: Path
) -> Generator[Unit, None, None]:
    """Carries out `units`, so many at once, and yields each when it is done; what each says goes into `logs`.

    `carry_out` is pickled, so a function of a module. Raises what a run raised, with its name said, `RunFailed` where a
    process was killed, `RunStopped` on SIGTERM or SIGHUP; then, and where the generator is closed, the other runs are
    asked to stop and waited for.
    """
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(at_once):
        places.put(place)
    others = set(multiprocessing.active_children())
    with (
        _stopping(),
        without_main(),
        progress(f"Study, {at_once} runs at once", len(units), "runs") as bar,
        ProcessPoolExecutor(
            at_once, context, initializer=_take_place, initargs=(places, gpus(), max(1, cores() // at_once))
        ) as pool,
    ):
        waiting: dict[Future[None], Unit] = {}
        due = deque(units)
        try:
            while due or waiting:
                while due and len(waiting) < at_once:  # none ahead of its turn, so that nothing starts after a stop
                    unit = due.popleft()
                    waiting[pool.submit(_in_its_log, carry_out, unit, log_of(unit, logs))] = unit
                ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    _raise_failure(future, waiting, logs)
                    bar.advance()
                    yield waiting.pop(future)
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # a run that is asked to stop ends its step and saves
            raise


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    allowed = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return (allowed or [str(number) for number in range(count)])[:count]


def log_of(unit: Unit, logs: Path) -> Path:
    """Where a run beside others says what it does."""
    return logs / f"{unit.name.replace('/', '-')}.log"


def _raise_failure(future: Future[None], waiting: Mapping[Future[None], Unit], logs: Path) -> None:
    """Raises what ended a run, if anything did, and says which run it was."""
    failure = future.exception()
    if isinstance(failure, BrokenProcessPool):
        names = ", ".join(unit.name for unit in waiting.values())
        raise RunFailed(
            f"a process was killed, for want of memory perhaps, while these ran: {names}. What they said is in {logs}. "
            "The same command goes on from there; a smaller --parallel needs less memory."
        ) from failure
    if failure is not None and not isinstance(failure, RunStopped):
        say(f"{waiting[future].name} failed; what it said is in {log_of(waiting[future], logs)}")
    future.result()


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


def _take_place(places: Any, devices: Sequence[str], threads: int) -> None:
    """In a new process: the GPU it works on, and its share of the cores."""
    end_with_parent()
    place = places.get()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    torch.set_num_threads(threads)


def _in_its_log(carry_out: Callable[[Unit], None], unit: Unit, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as file,
        redirect_stdout(file),
        redirect_stderr(file),
        on_terminal(),
    ):
        carry_out(unit)
