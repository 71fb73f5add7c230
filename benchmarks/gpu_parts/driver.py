"""Run the parts one after another, each in a separate process with a time limit; all its processes end with it."""

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
"""Environment variable that marks every process of a part, in any process group or session."""
LEAST = 10.0
"""Least remaining seconds for a part to start."""
STOPPED = 75
"""Exit code of a part that stopped its command at the time limit."""
EVERY = 15.0
"""Seconds between progress lines."""
_LOOK = 0.5
"""Seconds between checks of a part that its driver is alive."""
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_parts(
    parts: Mapping[str, float],
    command: Callable[[str, float], Sequence[str]],
    results: Results,
    limit: float,
    least: float = LEAST,
) -> list[str]:
    """Run each of `parts` (name -> limit in seconds) by `command` (name, seconds); return the names of failed parts.

    All parts together take at most `limit` seconds. Records in `results`: "begin" with the requested parts, then for
    each part "end" with its exit code, "cut off" at its time limit or by a signal to this process, or "left out" if
    fewer than `least` seconds are left. After such a signal all processes of the part are killed, and `SystemExit` with
    128 + the signal is raised.
    """
    began, failed = time.monotonic(), []
    results.note("call", "begin", parts=list(parts), limit=round(limit, 1))
    for name, most in parts.items():
        left = limit - (time.monotonic() - began)
        if left < least:
            results.note(name, "left out", why=f"only {max(0.0, left):.0f} s of {limit:.0f} left")
            failed.append(name)
            continue
        seconds, at = min(most, left), time.monotonic()
        print(f"{name}: at most {seconds:.0f} s, log in {results.out / name}.log", flush=True)
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
    """Turn the first termination signal into `SystemExit`, and ignore later ones during the cleanup."""

    def end(number: int, _: FrameType | None) -> None:
        for each in ASKED_TO_END:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, end) for each in ASKED_TO_END}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def _run_one(command: Sequence[str], seconds: float, log: Path) -> int | None:
    """Run `command`; return its exit code, None after a timeout. All its processes are killed."""
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
        _kill_marked(mark)  # a signal may have arrived before `process` was set
        if process:
            process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float, log: Path) -> int | None:
    """Return the exit code of `process`, None after a timeout; print progress every `EVERY` seconds."""
    began = time.monotonic()
    while (left := seconds - (time.monotonic() - began)) > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(min(EVERY, left))
        last = (_last_lines(log) or [""])[-1]
        print(f"  {log.stem}: {time.monotonic() - began:.0f} of {seconds:.0f} s · {last[:120]}", flush=True)
    return None


def end_with_driver() -> None:
    """End this part and all its processes as soon as the driver is gone."""
    mark = os.environ[MARK]

    def watch() -> None:
        while os.getppid() == int(mark.partition("-")[0]):
            time.sleep(_LOOK)
        _kill_marked(mark)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _kill_marked(mark: str) -> None:
    """Kill all processes with `mark` except this one."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            if pid != os.getpid():
                os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Return the processes started with `mark` in their environment; none without /proc."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # ended, or of another user
    return found


def _last_lines(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return file.read().decode("utf-8", errors="replace").splitlines()
