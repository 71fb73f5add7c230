"""Signals that ask a run to stop: it finishes the step, saves, and says so by its exit code.

SIGTERM is what schedulers and torchrun send before they kill; SIGINT is Ctrl-C; SIGHUP comes when a terminal or an SSH
session goes away. The first of them is only noted. A second one stops at once, unless it follows within `SAME_SECONDS`:
Ctrl-C under torchrun reaches a rank twice, from the terminal and from torchrun, and means one thing. SIGHUP never
counts as a second one, since shells repeat it, and is not looked at where it is ignored, as under nohup.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_SECONDS = 1.0


def nobody_else(flag: bool) -> bool:
    """Agrees for a world of one rank."""
    return flag


class Stop:
    """A context manager that notes signals; `agreed` says whether the run is to stop.

    `agree` turns this rank's flag into one all ranks share (true where any rank's is), so that all stop after the same
    step; every rank calls `agreed` equally often. Outside the main thread, where Python takes no signals, nothing is
    noted. Leaving restores the handlers there were.
    """

    def __init__(self, agree: Callable[[bool], bool] = nobody_else) -> None:
        self.name: str | None = None
        self._agree = agree
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            noted = [n for n in SIGNALS if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def asked(self) -> bool:
        """Whether a signal came to this rank."""
        return self.name is not None

    def agreed(self) -> bool:
        """Whether a signal came to any rank; a collective call."""
        return self._agree(self.asked)

    def soon(self, seconds: float) -> bool:
        """Waits up to `seconds` for a signal to this rank: one sent to a group of processes comes to each in turn."""
        end = time.monotonic() + seconds
        while not self.asked and time.monotonic() < end:
            time.sleep(0.01)
        return self.asked

    def _note(self, number: int, _: FrameType | None) -> None:
        caught = signal.Signals(number)
        if caught is signal.SIGHUP:
            _leave_lost_terminal()
        if not self.asked:
            self.name, self._at = caught.name, time.monotonic()
            # not through print: the signal may have come in the middle of one
            again = {signal.SIGINT: "; press Ctrl-C again to stop immediately", signal.SIGHUP: ""}
            now = again.get(caught, f"; send {caught.name} again to stop immediately")
            text = f"\n{caught.name}: finishing the step and saving a checkpoint{now}.\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        elif caught is not signal.SIGHUP and time.monotonic() - self._at > SAME_SECONDS:
            self.__exit__()
            if caught is signal.SIGINT:
                raise KeyboardInterrupt
            signal.signal(caught, signal.SIG_DFL)
            os.kill(os.getpid(), caught)


def _leave_lost_terminal() -> None:
    """Send standard output and error nowhere where their terminal is gone: every write to it would fail."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
