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
from types import FrameType
from typing import Any

from ernie2.training.hooks.base import Hook, OpenRun

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_SECONDS = 1.0


class Signals(Hook):
    """Notes signals and asks the run to stop. The handlers there were come back when it is closed.

    Outside the main thread, where Python takes no signals, nothing is noted.
    """

    required = True
    every_rank = True

    def __init__(self) -> None:
        self.caught: str | None = None
        """The name of the first signal that came to this rank."""
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def open(self, run: OpenRun) -> None:
        if threading.current_thread() is threading.main_thread():
            noted = [n for n in SIGNALS if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in noted}

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_reason(self) -> str | None:
        return None if self.caught is None else f"{self.caught} came"

    def on_batch_error(self, error: Exception) -> None:
        """Wait a little for a signal: one sent to a group of processes may end a loader worker before it comes here."""
        self.wait(SAME_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a signal; return whether one came."""
        end = time.monotonic() + seconds
        while self.caught is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.caught is not None

    def _note(self, number: int, _: FrameType | None) -> None:
        caught = signal.Signals(number)
        if caught is signal.SIGHUP:
            _leave_lost_terminal()
        if self.caught is None:
            self.caught, self._at = caught.name, time.monotonic()
            # not through print: the signal may have come in the middle of one
            again = {signal.SIGINT: "; press Ctrl-C again to stop immediately", signal.SIGHUP: ""}
            now = again.get(caught, f"; send {caught.name} again to stop immediately")
            text = f"\n{caught.name}: finishing the step and saving a checkpoint{now}.\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())
        elif caught is not signal.SIGHUP and time.monotonic() - self._at > SAME_SECONDS:
            self.close()
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
