"""Warn if a run makes no progress, with the activity of each rank. The watchdog never ends a run.

Every rank has its own and reports only itself, so it works even if other ranks or the network hang. Together the lines
show the cause: a rank that is building a batch delays those in the step, which wait for its gradients. Collectives that
hang are ended by the timeouts of torch.distributed; torchrun then restarts all ranks.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback

from ernie2.console import log_warning
from ernie2.training.hooks.base import Hook, OpenRun

CHECKS_PER_LIMIT = 4
"""Number of checks within the time limit."""
_FRAMES = 6


class Watchdog(Hook):
    """Warns from a thread if one phase of a run takes longer than `seconds`; 0 never warns.

    Messages name `rank` of `ranks` if there are several.
    """

    required = True
    every_rank = True

    def __init__(self, seconds: float, rank: int = 0, ranks: int = 1) -> None:
        self._seconds = seconds
        self._who = f"rank {rank} of {ranks}" if ranks > 1 else "the run"
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._thread_id = threading.get_ident()
        self._phase, self._since = "starting", time.monotonic()

    def open(self, run: OpenRun) -> None:
        self._thread_id = threading.get_ident()
        self._since = time.monotonic()
        if self._seconds > 0:
            self._closing.clear()
            self._thread = threading.Thread(target=self._watch, name="ernie2-watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def on_phase(self, doing: str) -> None:
        """Restart the clock for a new phase."""
        self._phase, self._since = doing, time.monotonic()

    def _watch(self) -> None:
        warned = self._since
        while not self._closing.wait(self._seconds / CHECKS_PER_LIMIT):
            now = time.monotonic()
            if now - max(warned, self._since) >= self._seconds:
                warned = now
                log_warning(self.message(now), every_rank=True)

    def message(self, now: float) -> str:
        """Return the message at `now` (time.monotonic) with the innermost calls of the watched thread, one per line."""
        text = f"No progress: {self._who} has been {self._phase} for {now - self._since:.0f} s."
        frame = sys._current_frames().get(self._thread_id)
        calls = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []
        place = "\n".join(f"    {call.filename}:{call.lineno} in {call.name}" for call in calls)
        return f"{text} It is at\n{place}" if place else text
