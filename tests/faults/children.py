"""Run one case in a child process: with limits, its output kept, and every process it leaves behind found."""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CPU_SECONDS = 30
WALL_SECONDS = 300
_MEMORY = 12 << 30
_MARK = "FAULT_CASE"
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    code: int
    """Its exit code; negative: the signal that ended it."""
    output: str
    """What it and its children printed."""
    hung: bool
    """Whether it was ended for using 30 s of processor time, or 5 minutes of time."""
    left: tuple[str, ...]
    """Command lines of processes that lived on after it."""

    @property
    def traceback(self) -> bool:
        """Whether a user would have seen a traceback."""
        return "Traceback (most recent call last)" in self.output or "this is a bug in ernie2" in self.output


class Child:
    """A running case: `body` in a forked child of this process, in a session of its own."""

    def __init__(self, body: Callable[[], int | None], log: Path) -> None:
        self._log, self._mark = log, f"{os.getpid()}-{time.monotonic_ns()}"
        self._began = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(body, log, self._mark)

    def wait(self) -> Ended:
        """Wait until it ends; end it where it hangs, and what it leaves behind."""
        status, hung = None, False
        while status is None:
            pid, raw, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                status = os.waitstatus_to_exitcode(raw)
                hung |= status == -signal.SIGXCPU or usage.ru_utime + usage.ru_stime >= CPU_SECONDS
            elif time.monotonic() - self._began > WALL_SECONDS:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
                time.sleep(0.1)
            else:
                time.sleep(0.01)
        left = self._left_behind()
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        output = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return Ended(status, output, hung, tuple(command for _, command in left))

    def _left_behind(self) -> list[tuple[int, str]]:
        until = time.monotonic() + _GRACE_SECONDS
        while (left := living(self._mark, self.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        return left


def run(body: Callable[[], int | None], log: Path) -> Ended:
    """Run `body` in a child and wait for it."""
    return Child(body, log).wait()


def command(*arguments: object) -> Callable[[], int | None]:
    """The command line of ernie2 on `arguments`, as a body for `run`."""

    def body() -> int | None:
        from ernie2.cli import main

        sys.argv = ["ernie2", *map(str, arguments)]
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    return body


def living(mark: str, session: int) -> list[tuple[int, str]]:
    """(pid, command line) of every living process of a session, or whose environment carries `mark`."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            ours = os.getsid(int(folder.name)) == session or mark.encode() in (folder / "environ").read_bytes()
            if ours and state not in "ZX":
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append((int(folder.name), line[:160]))
        except OSError:  # it ended meanwhile
            continue
    return found


def _become(body: Callable[[], int | None], log: Path, mark: str) -> None:
    """Be the child: never returns."""
    code = 70
    try:
        os.setsid()
        os.environ[_MARK] = mark
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
            for number in (1, 2)
        )
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        code = body() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
