"""Processes of our own: how many, how they start, and work shared out among them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar

from ernie2.console import Output, configure, current_output
from ernie2.errors import RunFailed

_Item = TypeVar("_Item")
_JOIN_SECONDS = 5.0


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def hidden_main_module() -> Iterator[None]:
    """Keeps processes started inside from importing the caller's script, of which they need nothing.

    Without this a script that calls `prepare` or `pretrain` outside `if __name__ == "__main__":` would run itself again
    in each.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def run_in_processes(
    function: Callable[[_Item], object],
    items: Sequence[_Item],
    workers: int,
    *,
    begin: Callable[[int], None] | None = None,
    what_now: str | Callable[[_Item], str],
    graceful: bool = False,
) -> Generator[_Item, None, None]:
    """Call `function` on every item in `workers` processes, each of which calls `begin` with its number first; yield
    items as they end.

    Where the work ends early, the other processes are killed, or with `graceful` get SIGTERM and the time they need;
    those may start processes of their own.

    Raises what a call raised, and `RunFailed`, ending in `what_now` (of the item), where a process was killed. A
    process has a pipe of its own and shares no lock, so whenever it is killed the others are not held up: process pools
    with shared queues can wait without end.
    """
    due = deque(items)
    running: dict[Connection, BaseProcess] = {}
    doing: dict[Connection, _Item] = {}
    try:
        for number in range(min(workers, len(items))):
            ours, process = _start_worker(function, begin and partial(begin, number), daemon=not graceful)
            running[ours], doing[ours] = process, due.popleft()
            _send(ours, doing[ours])
        while running:
            ready = wait(list(running))
            for ours in [one for one in running if one in ready]:
                yield _receive(ours, what_now(doing[ours]) if callable(what_now) else what_now)
                if due:
                    doing[ours] = due.popleft()
                    _send(ours, doing[ours])
                else:
                    ours.close()  # the process ends
                    running.pop(ours).join(_JOIN_SECONDS)
    finally:
        for ours, process in running.items():
            ours.close()
            (process.terminate if graceful else process.kill)()
        for process in running.values():
            process.join(None if graceful else _JOIN_SECONDS)


def exit_with_parent() -> None:
    """Let this process end as soon as the one that started it is gone, however it went, whatever this one is doing.

    A worker that outlives a killed command would go on writing into a folder that the command no longer holds.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "only for processes that another one started"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)  # at once: what was being written is a leftover that the next run removes

    threading.Thread(target=watch, name="ernie2-parent", daemon=True).start()


def _start_worker(
    function: Callable[[_Item], object], begin: Callable[[], None] | None, *, daemon: bool
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(function, begin, theirs, current_output()), daemon=daemon)
    process.start()
    theirs.close()
    return ours, process


def _send(ours: Connection, item: object) -> None:
    with suppress(OSError):  # `_receive` says that the process is gone
        ours.send(item)


def _receive(ours: Connection, what_now: str) -> Any:
    try:
        item, error = ours.recv()
    except (EOFError, OSError) as gone:
        raise RunFailed(
            f"a worker process was killed from outside, most likely for want of memory. {what_now}"
        ) from gone
    if error is not None:
        raise error
    return item


def _serve(
    function: Callable[[_Item], object], begin: Callable[[], None] | None, theirs: Connection, output: Output
) -> None:
    """In a worker: answer every item with (item, what the call raised or None), until the pipe is closed."""
    exit_with_parent()
    configure(output)
    if begin is not None:
        begin()
    with suppress(EOFError, OSError):
        while True:
            item, error = theirs.recv(), None
            try:
                function(item)
            except BaseException as raised:
                raised.add_note(traceback.format_exc())
                error = raised
            theirs.send((item, error))
