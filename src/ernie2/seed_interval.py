"""Means over seeds with 95 % intervals (Student's t).

If all seeds agree there is no interval: their spread is unknown, and an interval of width zero would claim too much.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Level of every interval, two-sided."""
_TOLERANCE = 1e-12  # relative difference below which values are equal up to rounding errors


@dataclass(frozen=True, slots=True)
class SeedInterval:
    """A mean over seeds. `low` and `high` are None for one seed or if all seeds agree; `note` says which."""

    mean: float
    low: float | None
    high: float | None
    note: str


def mean_over_seeds(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> SeedInterval:
    """Return the mean of one finite value per seed and its interval, in the unit of the values. Sums are exact.

    `least`, `most`: range of possible values; the interval is clipped to it, since two seeds often give a wider one.
    """
    mean = math.fsum(values) / len(values)
    if note := no_interval_reason(values):
        return SeedInterval(mean, None, None, note)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = student_quantile(len(values) - 1) * math.sqrt(variance / len(values))
    return SeedInterval(mean, max(least, mean - half), min(most, mean + half), "")


def no_interval_reason(values: Collection[float]) -> str:
    """Return "one seed" or "all 3 seeds agree" if the values have no interval, else ''."""
    if len(values) < 2:
        return "one seed"
    return agreement_note(len(values)) if all_equal(values) else ""


def all_equal(values: Collection[float]) -> bool:
    """Return whether all values are equal up to rounding errors."""
    return max(values) - min(values) <= _TOLERANCE * max(map(abs, values))


def agreement_note(seeds: int) -> str:
    """Return "all 3 seeds agree", for two "both seeds agree"."""
    return "both seeds agree" if seeds == 2 else f"all {seeds} seeds agree"


def student_quantile(degrees: int) -> float:
    """Return the quantile of Student's t: 12.706 for one degree of freedom, 4.303 for two, 2.776 for four."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))
