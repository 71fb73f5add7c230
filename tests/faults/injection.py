"""Let the n-th file operation of a process tree fail: SIGKILL, ENOSPC or EIO, by a preloaded C library.

The library (`preload.c`) is compiled on the spot and works below Python, so it meets the writes of numpy, pyarrow and
the Rust libraries as well.
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("preload.c")
_ROOT, _FIELDS = 1024, struct.Struct("<5q")


def compiler() -> str | None:
    """Return the C compiler there is, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def restart_with_injection(folder: Path) -> None:
    """Replace this process by itself with the library loaded; returns at once where it is loaded already.

    Compiles into `folder`. Raises `RuntimeError` where there is no C compiler.
    """
    if "FAULT_CONTROL" in os.environ:
        return
    if (found := compiler()) is None:
        raise RuntimeError("the fault campaign needs a C compiler (cc); install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    library, control = folder / "preload.so", folder / "control"
    subprocess.run([found, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
    control.write_bytes(bytes(_ROOT + _FIELDS.size))
    environment = {**os.environ, "LD_PRELOAD": str(library), "FAULT_CONTROL": str(control)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


@dataclass(frozen=True)
class Fault:
    """Which operation fails, and how."""

    at: int
    """Number of the operation, from 1; 0: none fails."""
    error: int = 0
    """0: SIGKILL before the operation; an errno: the operation fails with it."""
    lasting: bool = False
    """Whether later operations that need space fail too, as on a full disk."""


class Control:
    """The block of memory that this process shares with the library in its children."""

    def __init__(self) -> None:
        with open(os.environ["FAULT_CONTROL"], "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _ROOT + _FIELDS.size)

    def arm(self, root: Path, fault: Fault) -> None:
        """Count operations below `root` from 0, and let `fault` happen."""
        name = os.fsencode(root)
        assert len(name) < _ROOT
        self._memory[:_ROOT] = name + bytes(_ROOT - len(name))
        self._memory[_ROOT:] = _FIELDS.pack(0, fault.at, fault.error, int(fault.lasting), 0)

    def disarm(self) -> tuple[int, bool]:
        """Stop counting; return (operations so far, whether the fault happened)."""
        count, _, _, _, fired = _FIELDS.unpack(self._memory[_ROOT:])
        self._memory[:_ROOT] = bytes(_ROOT)
        return count, bool(fired)
