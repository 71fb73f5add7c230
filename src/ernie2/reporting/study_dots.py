"""Scores of a study as dots: a dot a pre-training seed, the mean and its interval, a plot a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ernie2.reporting.wording import decimal
from ernie2.studies.analysis.paper_table7 import paper_score
from ernie2.studies.analysis.results import ArmResult, Score
from ernie2.studies.analysis.statistics import Estimate


@dataclass(frozen=True)
class Row:
    """One arm: (place in percent of the width, value) of its dots by seed, its mean, and its interval's two places.

    `paper` is Table 7's figure for the arm and data set, `score` the details, None for the mean over data sets.
    """

    arm: str
    estimate: Estimate | None
    dots: tuple[tuple[int, float, float], ...]
    mean: float | None
    interval: tuple[float, float] | None
    score: Score | None
    paper: float | None


@dataclass(frozen=True)
class Plot:
    """One data set, or the mean over all: rows in the order of the arms, on one axis with its ticks."""

    name: str
    score: Score | None
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]


def plots(arms: Sequence[ArmResult]) -> tuple[Plot, ...]:
    """A plot a data set that any arm has, and the mean over the sets where there are several."""
    names = tuple(dict.fromkeys(score.dataset for arm in arms for score in arm.scores))
    made = []
    for name in names:
        found = [(arm, score) for arm in arms for score in arm.scores if score.dataset == name]
        made.append(_plot(name, [(arm.arm.name, score.estimate, score) for arm, score in found]))
    means = [(arm.arm.name, arm.mean_score, None) for arm in arms if arm.mean_score is not None]
    return (*made, _plot("mean of the scores", means)) if means and len(names) > 1 else tuple(made)


def _plot(name: str, entries: Sequence[tuple[str, Estimate | None, Score | None]]) -> Plot:
    estimates = [estimate for _, estimate, _ in entries if estimate is not None]
    low, high, step = axis(estimates)

    def place(value: float) -> float:
        return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 2)

    rows = []
    for arm, one, score in entries:
        held = None if one is None or one.low is None or one.high is None else (place(one.low), place(one.high))
        dots = () if one is None else tuple((seed, place(value), value) for seed, value in one.values.items())
        paper = None if score is None else paper_score(arm, name)
        rows.append(Row(arm, one, dots, None if one is None else place(one.mean), held, score, paper))
    ticks = range(round((high - low) / step) + 1)
    digits = 0 if step >= 1 else 1
    labels = tuple((place(low + n * step), decimal(low + n * step, digits)) for n in ticks)
    return Plot(name, next((score for _, _, score in entries if score is not None), None), tuple(rows), labels)


def axis(estimates: Sequence[Estimate]) -> tuple[float, float, float]:
    """Both ends of an axis and the step of its ticks, in percent.

    Every dot is on it, and the intervals as far as they go no farther beyond the dots than the dots' own range: with
    two seeds they are so wide that all dots would fall together.
    """
    values = [value for one in estimates for value in one.values.values()] or [0.0, 100.0]
    ends = [end for one in estimates for end in (one.low, one.high) if end is not None]
    room = max(values) - min(values) or 1.0
    low = max(min([*values, *ends]), min(values) - room)
    high = min(max([*values, *ends]), max(values) + room)
    step = next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20) if high - low <= 6 * step or step == 20)
    first, last = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return first, last if last > first else first + step, step
