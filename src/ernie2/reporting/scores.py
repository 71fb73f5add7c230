"""Dot plots of downstream scores: the pre-trained and the untrained encoder, one dot per seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ernie2.formatting import decimal
from ernie2.reporting.records_reader import Score


@dataclass(frozen=True)
class DotRow:
    """Values of one encoder: (position in percent of the width, value) of each seed, and of their mean."""

    name: str
    kind: str
    dots: tuple[tuple[float, float], ...]
    mean: tuple[float, float] | None


@dataclass(frozen=True)
class DotPlot:
    """A downstream score as a dot plot; positions are percentages of its width."""

    score: Score
    rows: tuple[DotRow, ...]
    majority: tuple[float, float] | None
    ticks: tuple[tuple[float, str], ...]


def dot_plot(score: Score) -> DotPlot:
    """Return the plot of one score; its axis covers all values with a few ticks."""
    values = [value for value in (*score.pretrained, *score.untrained, score.majority) if value is not None]
    values = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    span = max(values) - min(values)
    step = next((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if span <= 6 * step), span / 6)
    low, high = math.floor(min(values) / step - 0.25) * step, math.ceil(max(values) / step + 0.25) * step
    steps = round((high - low) / step)

    def position(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = []
    for name, kind, scores in (("pre-trained", "model", score.pretrained), ("untrained", "plain", score.untrained)):
        finite = [value for value in scores if math.isfinite(value)]
        mean = sum(finite) / len(finite) if finite else None
        dots = tuple((position(value), value) for value in finite)
        rows.append(DotRow(name, kind, dots, None if mean is None else (position(mean), mean)))
    ticks = tuple((round(100 * n / steps, 2), decimal(low + n * step, 2)) for n in range(steps + 1))
    majority = None if score.majority is None else (position(score.majority), score.majority)
    return DotPlot(score, tuple(rows), majority, ticks)
