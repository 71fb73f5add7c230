"""Processes that a test starts: each in a session of its own, which is killed when the test ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LIMIT = 300.0
"""Seconds that anything may take on a machine under load; reached only by a test that fails."""


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds; fails after `LIMIT` seconds."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def is_running(pid: int) -> bool:
    """Whether process `pid` is there and no zombie, by /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@contextmanager
def child_processes() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Yield `subprocess.Popen` for processes that, with all they started in their session, are killed at the end."""
    started: list[subprocess.Popen[Any]] = []

    def start(command: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        started.append(subprocess.Popen(list(map(str, command)), **options, start_new_session=True))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
