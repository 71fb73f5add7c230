"""Environment variables of the `ernie2` command, for scripts that train with ernie2."""

from __future__ import annotations

import os
import sys

VARIABLES = {"GOMP_SPINCOUNT": "3000", "THP_MEM_ALLOC_ENABLE": "1"}


def restart_with_variables() -> None:
    """Restart the script with `VARIABLES` if one is not set; torch and OpenMP read them when they are loaded."""
    if not VARIABLES.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], VARIABLES | os.environ)
