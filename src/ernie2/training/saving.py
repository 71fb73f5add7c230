"""Saving beside training: a step waits for a copy in memory, the disk is waited for by a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from threading import Thread
from typing import Any

from ernie2.training import checkpoints
from ernie2.training.full_state import FullState


class Saver:
    """Writes the checkpoints of `run` one after the other, and deletes all but the newest `keep` and the ends of
    stages.

    A context manager: leaving it waits for what is being written. What goes wrong is raised by whichever method is
    called next, as the `StorageError` it is. `then` is called in the thread with every checkpoint that is whole.
    """

    def __init__(self, run: Path, keep: int, then: Callable[[Path], None] | None = None) -> None:
        self._run, self._keep, self._then = run, keep, then
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()

    def save(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        """Begins to write checkpoint `step`, once the one before is written; `full` must not change any more."""
        self.finish()
        state = deepcopy(state)  # training goes on and changes it
        self._thread = Thread(target=self._write, args=(step, full, state), name="ernie2-checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong so far; waits for nothing."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def finish(self) -> None:
        """Waits until all is on the disk."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _write(self, step: int, full: FullState, state: Mapping[str, Any]) -> None:
        try:
            folder = checkpoints.write(self._run, step, full, state)
            checkpoints.prune(self._run, self._keep)
            if self._then is not None:
                self._then(folder)
        except BaseException as error:
            self._error = error
