"""A buffer that this process and the ones it starts both see: packs are handed over without going through a pipe."""

from __future__ import annotations

import mmap
import os
import tempfile
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SharedBuffer:
    """`slots` rows of `size` int32 in memory that processes share; `rows` (slots, size) is a view of it.

    To be given to a process as an argument when it is started. Memory is taken as rows are written, and freed when no
    process has the buffer any more, however they ended: it has no name that could be left behind.
    """

    def __init__(self, slots: int, size: int, descriptor: int | None = None) -> None:
        self._shape = slots, size
        if descriptor is None:
            descriptor = _anonymous_file()
            os.ftruncate(descriptor, 4 * slots * size)
        self._descriptor = descriptor
        self.rows: NDArray[Any] = np.frombuffer(mmap.mmap(descriptor, 4 * slots * size), np.int32).reshape(slots, size)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _attach, (*self._shape, reduction.DupFd(self._descriptor))

    def close(self) -> None:
        """Give the memory up; a view that is still in use keeps it."""
        self.rows = np.zeros((0, 0), np.int32)
        os.close(self._descriptor)


def _attach(slots: int, size: int, handle: Any) -> SharedBuffer:
    return SharedBuffer(slots, size, handle.detach())


def _anonymous_file() -> int:
    """A file without a name, in memory where the system offers that; /dev/shm is small in many containers."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ernie2-packs")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
