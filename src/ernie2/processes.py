"""Worker processes: how many, how they start, and running a function on items in them."""

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
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def hidden_main_module() -> Iterator[None]:
    """Prevent processes started in this context from importing the caller's script.

    Otherwise a script that calls `prepare` or `pretrain` outside `if __name__ == "__main__":` would run again in each.
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
    advice: str | Callable[[_Item], str],
    graceful: bool = False,
) -> Generator[_Item, None, None]:
    """Call `function` on every item in `workers` processes and yield each item when it is finished.

    Each process first calls `begin` with its number. If the work ends early, the other processes are killed; with
    `graceful` they get SIGTERM and unlimited time, and may start processes themselves.

    Raises the exception of a call, and `RunFailed` with the advice `advice` if a process was killed. Each process has
    its own pipe and shares no lock: unlike in a pool with shared queues, killing one cannot block the others.
    """
    pending = deque(items)
    running: dict[Connection, BaseProcess] = {}
    current: dict[Connection, _Item] = {}
    try:
        for number in range(min(workers, len(items))):
            connection, process = _start_worker(function, begin and partial(begin, number), daemon=not graceful)
            running[connection], current[connection] = process, pending.popleft()
            _send(connection, current[connection])
        while running:
            ready = wait(list(running))
            for connection in [one for one in running if one in ready]:
                yield _receive(connection, advice(current[connection]) if callable(advice) else advice)
                if pending:
                    current[connection] = pending.popleft()
                    _send(connection, current[connection])
                else:
                    connection.close()  # the process ends
                    running.pop(connection).join(_JOIN_SECONDS)
    finally:
        for connection, process in running.items():
            connection.close()
            (process.terminate if graceful else process.kill)()
        for process in running.values():
            process.join(None if graceful else _JOIN_SECONDS)


def exit_with_parent() -> None:
    """Exit this process as soon as its parent has ended for any reason.

    Otherwise a worker of a killed command would keep writing into a folder that is no longer locked.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "call this in a child process only"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)  # at once: the next run removes unfinished files

    threading.Thread(target=watch, name="ernie2-parent", daemon=True).start()


def _start_worker(
    function: Callable[[_Item], object], begin: Callable[[], None] | None, *, daemon: bool
) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    connection, child_connection = context.Pipe()
    process = context.Process(target=_serve, args=(function, begin, child_connection, current_output()), daemon=daemon)
    process.start()
    child_connection.close()
    return connection, process


def _send(connection: Connection, item: object) -> None:
    with suppress(OSError):  # `_receive` reports that the process has ended
        connection.send(item)


def _receive(connection: Connection, advice: str) -> Any:
    try:
        item, error = connection.recv()
    except (EOFError, OSError) as gone:
        raise RunFailed(
            f"a worker process was killed by the system, most likely because memory ran out. {advice}"
        ) from gone
    if error is not None:
        raise error
    return item


def _serve(
    function: Callable[[_Item], object], begin: Callable[[], None] | None, child_connection: Connection, output: Output
) -> None:
    """Serve in a worker: for each item received, send (item, exception or None), until the pipe is closed."""
    exit_with_parent()
    configure(output)
    if begin is not None:
        begin()
    with suppress(EOFError, OSError):
        while True:
            item, error = child_connection.recv(), None
            try:
                function(item)
            except BaseException as raised:
                raised.add_note(traceback.format_exc())
                error = raised
            child_connection.send((item, error))
