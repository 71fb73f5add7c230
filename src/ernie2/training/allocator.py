"""Memory between training steps on a CPU: freed memory is kept for the next step, within a bound."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h."""
_PRIMITIVES = "128"
"""Kernels oneDNN keeps, of 1,024 by default. It builds about 34 for the shapes of a pack and needs none of them in the
next step, whose packs have other shapes; kept, they hold 270 MB, spread over the heap so that it fragments."""
SETTLING_STEPS = 8
"""Steps after a trim whose largest memory tells what a step needs."""
MOST_GROWTH = 1.25
"""Memory of the process after a step, as a multiple of what a step needs, from which freed memory is given back."""


class FreedMemory:
    """Freed memory that glibc keeps for the next step; `libc` is None where it does not.

    Steps of ever different shapes fragment the heap, so that the kept memory grows. `trim_if_grown` bounds it: after a
    step the process holds at most `MOST_GROWTH` times what any `SETTLING_STEPS` steps after a trim held.
    """

    def __init__(self, libc: Any = None) -> None:
        self._libc = libc
        self._steps = 0
        self._needed = 0

    @property
    def kept(self) -> bool:
        """Whether freed memory is kept for the next step."""
        return self._libc is not None

    def trim_if_grown(self) -> None:
        """To be called after every step: give freed memory back to the kernel where it has grown by a quarter."""
        if self._libc is None:
            return
        self._steps += 1
        held = _resident_bytes()
        if self._steps <= SETTLING_STEPS:
            self._needed = max(self._needed, held)
        elif held > MOST_GROWTH * self._needed:
            self._libc.malloc_trim(0)
            self._steps = 0


def reuse_freed_memory(device: torch.device) -> FreedMemory:
    """Make glibc keep freed memory for the next allocation, for the rest of this process.

    By default glibc returns large tensors to the kernel as soon as they are freed, and the next step waits for fresh
    zeroed pages: 150,000 page faults and a fifth of a step of 6 layers × 384. Also makes oneDNN keep few kernels,
    unless it has run already. Only for a CPU `device`; settings of the user (`MALLOC_…_`, `GLIBC_TUNABLES`,
    `ONEDNN_PRIMITIVE_CACHE_CAPACITY`) win.
    """
    if device.type != "cpu":
        return FreedMemory()
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # its older name
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _PRIMITIVES)
    if not sys.platform.startswith("linux") or _set_by_user():
        return FreedMemory()
    libc = ctypes.CDLL(None)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):  # other C libraries have neither
        return FreedMemory()
    kept = libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1) and libc.mallopt(_MMAP_MAX, 0)
    return FreedMemory(libc if kept else None)


def _set_by_user() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc." in os.getenv("GLIBC_TUNABLES", "")


def _resident_bytes() -> int:
    """Memory of this process that lies in RAM, in bytes."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
