"""Estimates as a reader wants them: two digits after the point for points, four for fractions, a true minus sign."""

from __future__ import annotations

from collections.abc import Sequence

from ernie2.plurals import counted
from ernie2.studies.analysis.statistics import Estimate

POINTS, FRACTION = "points", "fraction"
"""Units: scores are in percent and their differences in points; held-out accuracies are fractions of 1."""
DASH = "–"


def number(value: float, digits: int) -> str:
    """-0.0321 with two digits → "−0.03"; -0.001 → "0.00"."""
    text = f"{value:z.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def plain(value: float, unit: str) -> str:
    """62.413 → "62.41" points, "0.4124" as a fraction; what rounds to zero has no sign."""
    return number(value, 2 if unit == POINTS else 4)


def signed(value: float, unit: str) -> str:
    """1.2 → "+1.20" points, "+1.2000" as a fraction; zero has no sign."""
    text = plain(value, unit)
    return text if value < 0 or float(text) == 0 else f"+{text}"


def in_words(found: Estimate, unit: str) -> str:
    """A difference: "+1.20 (95 % +0.31 to +2.09)"; without an interval "+1.20"."""
    if found.low is None or found.high is None:
        return signed(found.mean, unit)
    return f"{signed(found.mean, unit)} (95 % {signed(found.low, unit)} to {signed(found.high, unit)})"


def cell(found: Estimate | None, unit: str, seeds: int, *, change: bool = False) -> str:
    """A table's cell: "62.41 (60.12 to 64.70)", of so many seeds as the row says; other numbers of seeds are named.

    `change`: with signs.
    """
    if found is None:
        return DASH
    write = signed if change else plain
    text = write(found.mean, unit)
    few = "" if len(found.values) == seeds else f", {counted(len(found.values), 'seed')}"
    if found.low is None or found.high is None:
        return f"{text} ({found.note})"
    return f"{text} ({write(found.low, unit)} to {write(found.high, unit)}{few})"


def whole(found: Estimate | None) -> str:
    """A count's mean: "1,234,567"."""
    return DASH if found is None else f"{found.mean:,.0f}"


def listing(words: Sequence[str]) -> str:
    """["a", "b", "c"] → "a, b and c"; empty for none."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
