"""Means with intervals, parts of variance, and ratios: the arithmetic under every table of a study.

The unit is the pre-training seed: values of one seed are averaged before they come here, and arms are compared seed by
seed. Sums are exact (`math.fsum`) and taken in the order of the seeds, so the same values give the same digits in
whatever order they come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ernie2.seed_interval import agree, over_seeds, student_quantile, why_no_interval


@dataclass(frozen=True)
class Estimate:
    """A mean over pre-training seeds with its 95 % interval (Student's t), in the unit of its values.

    `low` and `high` are None for one seed and for seeds that all agree. `values` is by seed, in rising order of seeds,
    every value finite.
    """

    mean: float
    low: float | None
    high: float | None
    values: Mapping[int, float]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The pre-training seeds, rising."""
        return tuple(self.values)

    @property
    def direction(self) -> int:
        """+1 or -1 where the interval lies wholly above or below 0; 0 where it holds 0, and without an interval."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def note(self) -> str:
        """Why there is no interval: "one seed", "all 3 seeds agree"; '' where there is one."""
        return "" if self.low is not None else why_no_interval(self.values.values())


def estimate(values: Mapping[int, float | None] | Mapping[int, float]) -> Estimate | None:
    """The mean of one value a seed. Values that are None or not finite are left out; None where none is left."""
    known = {seed: value for seed, value in sorted(values.items()) if value is not None and math.isfinite(value)}
    if not known:
        return None
    found = over_seeds(list(known.values()))
    return Estimate(found.mean, found.low, found.high, known)


def difference(first: Estimate | None, second: Estimate | None) -> Estimate | None:
    """first − second, paired: the mean of the differences over the seeds both have; None where they share none."""
    if first is None or second is None:
        return None
    return estimate(
        {seed: value - second.values[seed] for seed, value in first.values.items() if seed in second.values}
    )


def mean_over(parts: Sequence[Estimate | None]) -> Estimate | None:
    """The mean of several figures within each seed, over the seeds that have all of them; None where none has."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    shared = set.intersection(*(set(part.values) for part in known))
    return estimate({seed: math.fsum(part.values[seed] for part in known) / len(known) for seed in shared})


@dataclass(frozen=True)
class Components:
    """Standard deviations of two sources of chance, in the unit of the values; None where they cannot be told."""

    between: float | None
    """Of the group's true value (the pre-training seed)."""
    within: float | None
    """Of one value around its group (the fine-tuning seed), pooled over the groups."""


def variance_components(groups: Mapping[int, Sequence[float]]) -> Components:
    """One-way random-effects analysis of variance by the method of moments; groups may differ in size.

    within² = MS_within; between² = (MS_between − MS_within) / n₀ with n₀ = (N − Σ nᵢ² / N) / (k − 1), 0 where that is
    negative (Searle, Casella & McCulloch, Variance Components, 1992, ch. 3). `within` needs a group with two values,
    `between` two groups besides.
    """
    rows = [list(groups[key]) for key in sorted(groups) if groups[key]]
    count, total = len(rows), sum(map(len, rows))
    if total == count:
        return Components(None, None)
    means = [math.fsum(row) / len(row) for row in rows]
    spread = math.fsum((value - mean) ** 2 for row, mean in zip(rows, means, strict=True) for value in row)
    within = spread / (total - count)
    if count < 2:
        return Components(None, math.sqrt(within))
    middle = math.fsum(value for row in rows for value in row) / total
    between = math.fsum(len(row) * (mean - middle) ** 2 for row, mean in zip(rows, means, strict=True)) / (count - 1)
    size = (total - sum(len(row) ** 2 for row in rows) / total) / (count - 1)
    return Components(math.sqrt(max(0.0, (between - within) / size)), math.sqrt(within))


@dataclass(frozen=True)
class RatioInterval:
    """A ratio of two paired means and its 95 % interval by Fieller's theorem.

    `value` is None where the second mean is 0. `low` and `high` are None for one pair, where all pairs have the same
    ratio (`bounded` is True then), and where the second mean is not told from 0 (`bounded` is False): the ratios that
    agree with the values reach to infinity.
    """

    value: float | None
    low: float | None
    high: float | None
    bounded: bool


def fieller(first: Sequence[float], second: Sequence[float]) -> RatioInterval:
    """mean(first) / mean(second), the two paired item by item (Fieller 1954, with the covariance of the pairs).

    The interval holds every ρ for which the mean of first − ρ·second is not told from 0 by a paired t test.
    """
    pairs = len(first)
    top, bottom = math.fsum(first) / pairs, math.fsum(second) / pairs
    value = top / bottom if bottom else None
    if pairs == 1:
        return RatioInterval(value, None, None, False)
    square = student_quantile(pairs - 1) ** 2 / pairs
    # ρ²·leading − 2ρ·middle + constant ≤ 0
    leading = bottom**2 - square * _covariance(second, second)
    if leading <= 0 or value is None:
        return RatioInterval(value, None, None, False)
    if agree([top, *(top + one - value * other for one, other in zip(first, second, strict=True))]):
        return RatioInterval(value, None, None, True)
    middle = top * bottom - square * _covariance(first, second)
    constant = top**2 - square * _covariance(first, first)
    half = math.sqrt(max(0.0, middle**2 - leading * constant)) / leading
    return RatioInterval(value, middle / leading - half, middle / leading + half, True)


def _covariance(first: Sequence[float], second: Sequence[float]) -> float:
    """Of at least two pairs, divided by one less than their number."""
    means = math.fsum(first) / len(first), math.fsum(second) / len(second)
    return math.fsum((a - means[0]) * (b - means[1]) for a, b in zip(first, second, strict=True)) / (len(first) - 1)
