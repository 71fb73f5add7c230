"""The watchdog: when no step ends for long, it says which rank waits for what. It never ends anything.

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
from types import FrameType

from ernie2.console import warn

LOOK_SHARE = 4
"""It looks so many times within the time it waits."""
_FRAMES = 6


class Watchdog:
    """A context manager with a thread that speaks after `seconds` without `step_done`; 0 never speaks.

    `phase` is set by the one who trains; `rank` of `world` is named where there are several.
    """

    def __init__(self, seconds: float, rank: int = 0, world: int = 1) -> None:
        self._seconds = seconds
        self._who = f"rank {rank} of {world}" if world > 1 else "the run"
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self._phase, self._since = "starting", time.monotonic()
        self._done = self._said = self._since
        self._watched = threading.get_ident()

    def __enter__(self) -> Watchdog:
        self._watched = threading.get_ident()
        self._done = self._said = self._since = time.monotonic()
        if self._seconds > 0:
            self._left.clear()
            self._thread = threading.Thread(target=self._watch, name="ernie2-watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def phase(self, doing: str) -> None:
        """Says what begins now, such as "making the batch of step 12"."""
        self._phase, self._since = doing, time.monotonic()

    def step_done(self) -> None:
        """A step ended, or something else that shows that the run goes on."""
        self._done = self._said = time.monotonic()

    def _watch(self) -> None:
        while not self._left.wait(self._seconds / LOOK_SHARE):
            now = time.monotonic()
            if now - self._said >= self._seconds:
                self._said = now
                warn(self.told(now))

    def told(self, now: float) -> str:
        """What the watchdog says at `now` (of time.monotonic), with the place in the code last of all."""
        text = (
            f"No step has ended for {now - self._done:.0f} s: {self._who} has been {self._phase} "
            f"for {now - self._since:.0f} s."
        )
        frame = sys._current_frames().get(self._watched)
        return text if frame is None else f"{text} It is at\n{_place(frame)}"


def _place(frame: FrameType) -> str:
    """The innermost calls of a thread, one a line."""
    calls = traceback.extract_stack(frame)[-_FRAMES:]
    return "\n".join(f"    {call.filename}:{call.lineno} in {call.name}" for call in calls)
