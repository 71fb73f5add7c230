"""Parts one after another, each in a process of its own with a limit; nothing of a part outlives it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from gpu_parts.results import Results

MARK = "ERNIE2_GPU_PART"
"""The environment variable by which every process of a part is known, whatever group or session it moved to."""
LEAST = 10.0
"""Seconds without which no part begins."""
STOPPED = 75
"""The exit code of a part that stopped its command because its time was over."""
EVERY = 15.0
"""Seconds between two lines that say how far a part is."""
_LOOK = 0.5
"""Seconds between two looks of a part at whether its driver is there."""
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_parts(
    parts: Mapping[str, float],
    command: Callable[[str, float], Sequence[str]],
    results: Results,
    limit: float,
    least: float = LEAST,
) -> list[str]:
    """Run each of `parts` (name -> most seconds) by `command` (name, seconds); return the names of those that failed.

    All of them together take `limit` seconds at most. Which were asked for is noted in `results` as "begin", then how
    each ended: "end" with its exit code, "cut off" where its time was over or this process was asked to end by a
    signal, "left out" where fewer than `least` seconds were left. After such a signal no process of a part is left, and
    `SystemExit` is raised with 128 + the signal.
    """
    began, failed = time.monotonic(), []
    results.note("call", "begin", parts=list(parts), limit=round(limit, 1))
    for name, most in parts.items():
        left = limit - (time.monotonic() - began)
        if left < least:
            results.note(name, "left out", why=f"only {max(0.0, left):.0f} s of {limit:.0f} were left")
            failed.append(name)
            continue
        seconds, at = min(most, left), time.monotonic()
        print(f"{name} begins, for {seconds:.0f} s at most; it writes to {results.out / name}.log", flush=True)
        try:
            with _ends_on_signals():
                code = _run_one(command(name, seconds), seconds, results.out / f"{name}.log")
        except SystemExit as end:
            took = round(time.monotonic() - at, 1)
            results.note(name, "cut off", seconds=took, by=signal.Signals(int(str(end.code)) - 128).name)
            raise
        took = round(time.monotonic() - at, 1)
        if code in (None, STOPPED):
            results.note(name, "cut off", seconds=took)
        else:
            said = {} if code == 0 else {"said": _last_lines(results.out / f"{name}.log")[-6:]}
            results.note(name, "end", exit_code=code, seconds=took, **said)
        if code != 0:
            failed.append(name)
    return failed


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Turn the first signal that asks this process to end into `SystemExit`; later ones do not disturb what it ends."""

    def end(number: int, _: FrameType | None) -> None:
        for each in ASKED_TO_END:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, end) for each in ASKED_TO_END}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def _run_one(command: Sequence[str], seconds: float, log: Path) -> int | None:
    """The exit code of `command`, None where it took longer; no process that it started is left then."""
    mark, process = f"{os.getpid()}-{secrets.token_hex(8)}", None
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: mark},
                start_new_session=True,
            )
        return _wait(process, seconds, log)
    finally:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        _kill_marked(mark)  # a signal may have come before the process had a name here
        if process:
            process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float, log: Path) -> int | None:
    """The exit code of `process`, None where it takes longer; how far it is is printed every `EVERY` seconds."""
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(EVERY, left))
        last = (_last_lines(log) or [""])[-1]
        print(f"  {log.stem}: {time.monotonic() - began:.0f} of {seconds:.0f} s · {last[:120]}", flush=True)
    return None


def end_with_driver() -> None:
    """End this part, and every process it started, as soon as the driver is gone, however it went."""
    mark = os.environ[MARK]

    def watch() -> None:
        while os.getppid() == int(mark.partition("-")[0]):
            time.sleep(_LOOK)
        _kill_marked(mark)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _kill_marked(mark: str) -> None:
    """Kill the processes with `mark` but this one."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Processes with `mark` in the environment they were started with; none where there is no /proc."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return file.read().decode("utf-8", errors="replace").splitlines()
