"""Parts one after another, each in a process of its own with a limit; nothing of a part outlives it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from gpu_parts.job import note

MARK = "ERNIE2_GPU_PART"
"""The environment variable by which every process of a part is known, whatever group or session it moved to."""
LEAST = 10.0
"""Seconds without which no part begins."""
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_parts(
    parts: Mapping[str, float],
    command: Callable[[str, float], Sequence[str]],
    out: Path,
    limit: float,
    least: float = LEAST,
) -> list[str]:
    """Run each of `parts` (name -> most seconds) by `command` (name, seconds); return the names of those that failed.

    All of them together take `limit` seconds at most. How each ended is noted in results.jsonl: "end" with its exit
    code, "cut off" where its time was over or this process was asked to end by a signal, "left out" where fewer than
    `least` seconds were left. After such a signal no process of a part is left, and `SystemExit` is raised with 128 +
    the signal.
    """
    began, failed = time.monotonic(), []
    for name, most in parts.items():
        left = limit - (time.monotonic() - began)
        if left < least:
            note(out, name, "left out", why=f"only {max(0.0, left):.0f} s of {limit:.0f} were left")
            failed.append(name)
            continue
        seconds, at = min(most, left), time.monotonic()
        try:
            with _ends_on_signals():
                code = _run_one(command(name, seconds), seconds, out / f"{name}.log")
        except SystemExit as end:
            took = round(time.monotonic() - at, 1)
            note(out, name, "cut off", seconds=took, by=signal.Signals(int(str(end.code)) - 128).name)
            raise
        took = round(time.monotonic() - at, 1)
        if code is None:
            note(out, name, "cut off", seconds=took)
        else:
            note(out, name, "end", exit_code=code, seconds=took, **({} if code == 0 else {"said": _end_of(out, name)}))
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
    mark, process = secrets.token_hex(8), None
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: mark},
                start_new_session=True,
            )
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pid in marked(mark):  # a signal may have come before the process had a name here
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process:
            process.wait()


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


def _end_of(out: Path, name: str) -> list[str]:
    return (out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
