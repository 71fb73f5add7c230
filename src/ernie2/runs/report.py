"""Write the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ernie2.reporting.report import write_report


def report(run: str | Path, beside: Sequence[str | Path] = ()) -> Path:
    """Writes RUN/report.html from the run's records; returns its path.

    With runs `beside` it, the page also compares what each task kept in them; runs that differ in nothing but the seed
    are taken together.
    """
    return write_report(Path(run), [Path(other) for other in beside])
