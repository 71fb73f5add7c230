"""Means over seeds with their 95 % intervals (Student's t): the one place that computes them.

Seeds that all agree give no interval: their spread is not known, and an interval without width would leave out every
other value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of every interval, two-sided."""
_TOLERANCE = 1e-12  # values that differ by less than this share of the largest are one value with rounding errors


@dataclass(frozen=True, slots=True)
class SeedInterval:
    """A mean over seeds; `low` and `high` are None for one seed and for seeds that all agree, and `note` says which."""

    mean: float
    low: float | None
    high: float | None
    note: str


def mean_over_seeds(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> SeedInterval:
    """Return the mean of one finite value a seed, with the interval in the unit of the values. Sums are exact.

    `least`, `most`: what such a value can be; the interval is cut to them, as two seeds often give a far wider one.
    """
    mean = math.fsum(values) / len(values)
    if note := no_interval_reason(values):
        return SeedInterval(mean, None, None, note)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = student_quantile(len(values) - 1) * math.sqrt(variance / len(values))
    return SeedInterval(mean, max(least, mean - half), min(most, mean + half), "")


def no_interval_reason(values: Collection[float]) -> str:
    """Return "one seed" or "all 3 seeds agree" for values that have no interval, '' for others."""
    if len(values) < 2:
        return "one seed"
    return agreement_note(len(values)) if all_equal(values) else ""


def all_equal(values: Collection[float]) -> bool:
    """Whether all values are the same, rounding errors apart."""
    return max(values) - min(values) <= _TOLERANCE * max(map(abs, values))


def agreement_note(seeds: int) -> str:
    """ "all 3 seeds agree", of two "both seeds agree"."""
    return "both seeds agree" if seeds == 2 else f"all {seeds} seeds agree"


def student_quantile(degrees: int) -> float:
    """Student's t: 12.706 for one degree of freedom, 4.303 for two, 2.776 for four."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))
