"""Statistics for the tables of a study: means with intervals and their text, variance components, and ratios.

The sampling unit is the pre-training seed: values of one seed are averaged first, and methods are compared seed by
seed. Sums are in the order of the seeds, so results do not depend on the order of the input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ernie2.formatting import DASH, decimal, quantity, signed
from ernie2.seed_interval import SeedInterval, all_equal, mean_over_seeds, student_quantile

POINTS, FRACTION = 2, 4
"""Digits of the two units: percentages (differences in points) for scores, and fractions of 1 for held-out accuracy."""


@dataclass(frozen=True)
class Estimate(SeedInterval):
    """A mean over pre-training seeds with its 95 % interval, in the unit of its values.

    `values`: finite values by seed, ascending.
    """

    values: Mapping[int, float]

    @property
    def direction(self) -> int:
        """+1 or -1 if the entire interval lies above or below 0; 0 if it contains 0, and without an interval."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def estimate(values: Mapping[int, float | None] | Mapping[int, float]) -> Estimate | None:
    """Return the mean of one value per seed, ignoring None and non-finite values; None if there are no others."""
    known = {seed: value for seed, value in sorted(values.items()) if value is not None and math.isfinite(value)}
    if not known:
        return None
    result = mean_over_seeds(list(known.values()))
    return Estimate(result.mean, result.low, result.high, result.note, known)


def difference(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """Return first − second, paired over the seeds that both have; None if they share none."""
    if first is None or second is None:
        return None
    shared = [seed for seed in first.values if seed in second.values]
    return estimate({seed: first.values[seed] - second.values[seed] for seed in shared})


def format_difference(difference: Estimate, unit: int) -> str:
    """Return a difference as text: "+1.20 (95 % +0.31 to +2.09)", or "+1.20" without an interval."""
    text = signed(difference.mean, unit)
    if difference.low is None:
        return text
    return f"{text} (95 % {signed(difference.low, unit)} to {signed(difference.high, unit)})"


def format_cell(figure: Estimate | None, unit: int, seeds: int, *, change: bool = False) -> str:
    """Return a table cell: "62.41 (60.12 to 64.70)", plus the number of seeds if it differs from `seeds`.

    `change`: write signs.
    """
    if figure is None:
        return DASH
    write = signed if change else decimal
    text = write(figure.mean, unit)
    if figure.low is None:
        return f"{text} ({figure.note})"
    few = "" if len(figure.values) == seeds else f", {quantity(len(figure.values), 'seed')}"
    return f"{text} ({write(figure.low, unit)} to {write(figure.high, unit)}{few})"


def variance_components(groups: Mapping[int, Sequence[float]]) -> tuple[float | None, float | None]:
    """Return the standard deviations between groups (pre-training seeds) and within them (fine-tuning seeds).

    One-way random-effects analysis of variance by the method of moments; groups may differ in size. within² =
    MS_within; between² = (MS_between − MS_within) / n₀ with n₀ = (N − Σ nᵢ² / N) / (k − 1), or 0 if that is negative
    (Searle, Casella & McCulloch, Variance Components, 1992, ch. 3). Both are None if no group has two values; `between`
    is also None below two groups.
    """
    rows = [np.asarray(groups[key], dtype=float) for key in sorted(groups) if len(groups[key])]
    sizes = np.array([len(row) for row in rows])
    if not len(rows) or sizes.max() < 2:
        return None, None
    total, free = sizes.sum(), len(rows) - 1
    within = sum(((row - row.mean()) ** 2).sum() for row in rows) / (total - len(rows))
    if not free:
        return None, math.sqrt(within)
    means = np.array([row.mean() for row in rows])
    between = (sizes * (means - np.concatenate(rows).mean()) ** 2).sum() / free
    size = (total - (sizes**2).sum() / total) / free
    return math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within)


@dataclass(frozen=True)
class RatioInterval:
    """A ratio of two paired means and its 95 % interval by Fieller's theorem.

    `value` is None if the second mean is 0. `low` and `high` are None for one pair, if all pairs have the same ratio
    (`bounded` is True), and if the second mean does not differ significantly from 0 (`bounded` is False): the interval
    is then unbounded.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    bounded: bool = False


def fieller_ratio(first: Sequence[float], second: Sequence[float]) -> RatioInterval:
    """Return mean(first) / mean(second) for paired values (Fieller 1954, with the covariance of the pairs).

    The interval contains every ρ for which a paired t test does not reject that the mean of first − ρ·second is 0.
    """
    pairs = len(first)
    top, bottom = math.fsum(first) / pairs, math.fsum(second) / pairs
    value = top / bottom if bottom else None
    if pairs == 1 or value is None:
        return RatioInterval(value)
    spread = student_quantile(pairs - 1) ** 2 / pairs * np.cov(first, second)
    # ρ²·leading − 2ρ·middle + constant ≤ 0
    leading, middle, constant = bottom**2 - spread[1, 1], top * bottom - spread[0, 1], top**2 - spread[0, 0]
    if leading <= 0:
        return RatioInterval(value)
    if all_equal([top, *(top + one - value * other for one, other in zip(first, second, strict=True))]):
        return RatioInterval(value, bounded=True)
    half = math.sqrt(max(0.0, middle**2 - leading * constant)) / leading
    return RatioInterval(value, float(middle / leading - half), float(middle / leading + half), bounded=True)
