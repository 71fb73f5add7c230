"""What a process of a study does in tests of runs side by side."""

from __future__ import annotations

import os
import signal

from ernie2.errors import DataError
from ernie2.studies.methods import PlannedRun


def tell(run: PlannedRun) -> None:
    """All is well."""
    print(f"this is {run.name}")


def die(run: PlannedRun) -> None:
    """As under a kernel that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(run: PlannedRun) -> None:
    """As on input that is wrong."""
    raise DataError("nothing to read")
