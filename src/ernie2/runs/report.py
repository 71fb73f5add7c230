"""Write the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ernie2.reporting.report import write_report


def report(run: str | Path, compare: Sequence[str | Path] = ()) -> Path:
    """Write RUN/report.html from the run's records and return its path.

    `compare`: other runs, whose forgetting the page compares with this run. Runs that differ only in the seed share a
    column.
    """
    return write_report(Path(run), [Path(other) for other in compare])
