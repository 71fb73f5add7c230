"""Stop a run on SIGTERM, SIGINT or SIGHUP: finish the step, save, and exit with the code for a stopped run.

Schedulers and torchrun send SIGTERM before they kill; SIGINT is Ctrl-C; SIGHUP is sent when a terminal or SSH session
closes. The first signal is only recorded. A second one stops at once, except within `SAME_SECONDS`: under torchrun,
Ctrl-C reaches a rank twice, from the terminal and from torchrun. SIGHUP never counts as a second signal, since shells
repeat it, and is not handled if it is ignored, as under nohup.
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
    """Records signals and stops the run. Closing restores the previous handlers.

    Outside the main thread, Python cannot handle signals, and this does nothing.
    """

    required = True
    every_rank = True

    def __init__(self) -> None:
        self.caught: str | None = None
        """Name of the first signal this rank received."""
        self._at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def open(self, run: OpenRun) -> None:
        if threading.current_thread() is threading.main_thread():
            handled = [n for n in SIGNALS if n is not signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def stop_reason(self) -> str | None:
        return None if self.caught is None else f"received {self.caught}"

    def on_batch_error(self, error: Exception) -> None:
        """Wait briefly for a signal, which may have ended a loader worker before it reached this process."""
        self.wait(SAME_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for a signal; return whether one was received."""
        end = time.monotonic() + seconds
        while self.caught is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.caught is not None

    def _handle(self, number: int, _: FrameType | None) -> None:
        caught = signal.Signals(number)
        if caught is signal.SIGHUP:
            _detach_lost_terminal()
        if self.caught is None:
            self.caught, self._at = caught.name, time.monotonic()
            # not with print, which the signal may have interrupted
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


def _detach_lost_terminal() -> None:
    """Redirect standard output and error to os.devnull if their terminal is gone, since writing to it fails."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, descriptor)
                os.close(devnull)
