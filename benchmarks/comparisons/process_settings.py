"""The environment variables that the `ernie2` command sets for itself, for a script that trains with ours."""

from __future__ import annotations

import os
import sys

VARIABLES = {"GOMP_SPINCOUNT": "3000", "THP_MEM_ALLOC_ENABLE": "1"}


def restart_with_variables() -> None:
    """Begin the script again with `VARIABLES` where one is not set; torch and OpenMP read them when they are loaded."""
    if not VARIABLES.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], VARIABLES | os.environ)
