"""The command line: each command calls the function of its name, says where the result is and what to do next.

Exit codes: 0 done, 1 the run failed, 2 wrong input or nowhere to write (what, where, what now; no traceback), 75 asked
to stop by SIGTERM or Ctrl-C and saved, so that `ernie2 resume` goes on, 130 interrupted with nothing saved. This module
imports no library but typer, so that help comes at once; the functions import what they need.
"""

from __future__ import annotations

from ernie2.cli import data, finetuning, measuring, results, training
from ernie2.cli.app import app, main

__all__ = ["app", "data", "finetuning", "main", "measuring", "results", "training"]
