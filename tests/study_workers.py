"""What a process of a study does in tests of runs that fail."""

from __future__ import annotations

import os
import signal

from ernie2.errors import DataError
from ernie2.studies.arms import Unit
from ernie2.studies.settings import StudySettings


def die(unit: Unit, settings: StudySettings) -> None:
    """As under a kernel that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail(unit: Unit, settings: StudySettings) -> None:
    """As on input that is wrong."""
    raise DataError("nothing to read")
