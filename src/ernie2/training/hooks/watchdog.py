"""The watchdog: when a run makes no progress for long, it says which rank waits for what. It never ends anything.

Every rank has one and tells of itself only, so it can speak when the others, or the network, cannot. Read together,
the lines name the culprit: the rank that is making a batch holds up those that are in the step, where they wait for its
gradients. Ending a collective that hangs is left to torch.distributed, whose time limits end the rank with an error;
torchrun then starts all ranks again.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback

from ernie2.console import log_warning
from ernie2.training.hooks.base import Hook, OpenRun

CHECKS_PER_LIMIT = 4
"""It looks so many times within the time it waits."""
_FRAMES = 6


class Watchdog(Hook):
    """Warns, from a thread of its own, when one phase of a run takes longer than `seconds`; 0 never warns.

    `rank` of `ranks` is named where there are several.
    """

    required = True
    every_rank = True

    def __init__(self, seconds: float, rank: int = 0, ranks: int = 1) -> None:
        self._seconds = seconds
        self._who = f"rank {rank} of {ranks}" if ranks > 1 else "the run"
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched = threading.get_ident()
        self._phase, self._since = "starting", time.monotonic()

    def open(self, run: OpenRun) -> None:
        self._watched = threading.get_ident()
        self._since = time.monotonic()
        if self._seconds > 0:
            self._left.clear()
            self._thread = threading.Thread(target=self._watch, name="ernie2-watchdog", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._left.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def on_phase(self, doing: str) -> None:
        """Count from here: what was done before has ended."""
        self._phase, self._since = doing, time.monotonic()

    def _watch(self) -> None:
        warned = self._since
        while not self._left.wait(self._seconds / CHECKS_PER_LIMIT):
            now = time.monotonic()
            if now - max(warned, self._since) >= self._seconds:
                warned = now
                log_warning(self.message(now), every_rank=True)

    def message(self, now: float) -> str:
        """What is said at `now` (of time.monotonic), with the innermost calls of the watched thread, one a line."""
        text = f"No progress: {self._who} has been {self._phase} for {now - self._since:.0f} s."
        frame = sys._current_frames().get(self._watched)
        calls = traceback.extract_stack(frame)[-_FRAMES:] if frame is not None else []
        place = "\n".join(f"    {call.filename}:{call.lineno} in {call.name}" for call in calls)
        return f"{text} It is at\n{place}" if place else text
