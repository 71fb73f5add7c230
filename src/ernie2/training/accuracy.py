"""Confidence intervals for accuracies: Wilson's, which keeps its width at 0 and at 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


def wilson(share: float, trials: float) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion: `share` right of `trials` independent trials (may be fractional)."""
    square = Z95**2 / trials
    centre = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * math.sqrt(share * (1 - share) / trials + square / (4 * trials))
    # where all or none are right, the bound is exactly that, whatever the rounding
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def accuracy_interval(right: Array, owner: Array) -> tuple[float, float, float]:
    """Accuracy over scored positions with its 95 % interval, (accuracy, low, high).

    `right` (p,) bool, `owner` (p,) the instance of each position. Positions of one instance are correlated, so Wilson's
    interval is taken for the *effective* number of trials: the number of independent positions whose accuracy would
    have the variance that instance totals show (linearised ratio estimator, clustered by instance). It equals the
    number of instances where each scores one position, and is set to it where all positions are right or all wrong,
    which shows no variance.
    """
    counts = np.bincount(owner).astype(float)
    totals = np.bincount(owner, weights=right)
    counts, totals = counts[counts > 0], totals[counts > 0]
    positions, instances = float(counts.sum()), len(counts)
    accuracy = float(totals.sum()) / positions
    squares = float(((totals - accuracy * counts) ** 2).sum())
    if accuracy in (0.0, 1.0):
        trials = float(instances)
    else:
        trials = min(positions, accuracy * (1 - accuracy) * positions**2 / squares) if squares else positions
    return accuracy, *wilson(accuracy, trials)
