"""Argument types and error handling shared by the scripts."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ernie2.errors import Ernie2Error
from ernie2.storage.line_files import check_appendable


def count(text: str) -> int:
    """Parse a whole number of at least 1; for `type` of an argument."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def output_file(text: str) -> Path:
    """Parse the path of a writable file and create missing folders; for `type` of an argument."""
    try:
        check_appendable(Path(text))
    except Ernie2Error as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Print user errors as one line. On SIGTERM, forward it to child processes and exit, removing temporary folders."""
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    except Ernie2Error as error:
        print(f"{error.heading}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, _: FrameType | None) -> None:
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)
    sys.exit(128 + number)
