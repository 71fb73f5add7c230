"""The command line: each command calls the API function of the same name and prints where its results are.

Exit codes: 0 success, 1 the run failed, 2 invalid input or a failed write (a message without traceback), 75 stopped by
SIGTERM, Ctrl-C or a hook after saving, so that `ernie2 resume` continues, 130 interrupted with nothing saved. This
package imports only typer, to make --help fast; the API functions import what they need.
"""

from __future__ import annotations

from ernie2.cli import data, finetuning, measuring, results, training
from ernie2.cli.app import app, main

__all__ = ["app", "data", "finetuning", "main", "measuring", "results", "training"]
