"""Estimates as a reader wants them: two digits after the point for points, four for fractions, a true minus sign."""

from __future__ import annotations

from ernie2.studies.analysis.statistics import Estimate
from ernie2.wording import DASH, counted, decimal, signed

POINTS, FRACTION = 2, 4
"""Digits of the two units: scores are in percent and their differences in points; held-out accuracies are fractions
of 1."""


def in_words(difference: Estimate, unit: int) -> str:
    """A difference: "+1.20 (95 % +0.31 to +2.09)"; without an interval "+1.20"."""
    text = signed(difference.mean, unit)
    if difference.low is None:
        return text
    return f"{text} (95 % {signed(difference.low, unit)} to {signed(difference.high, unit)})"


def cell(figure: Estimate | None, unit: int, seeds: int, *, change: bool = False) -> str:
    """A table's cell: "62.41 (60.12 to 64.70)", of so many seeds as the row says; other numbers of seeds are named.

    `change`: with signs.
    """
    if figure is None:
        return DASH
    write = signed if change else decimal
    text = write(figure.mean, unit)
    if figure.low is None:
        return f"{text} ({figure.note})"
    few = "" if len(figure.values) == seeds else f", {counted(len(figure.values), 'seed')}"
    return f"{text} ({write(figure.low, unit)} to {write(figure.high, unit)}{few})"
