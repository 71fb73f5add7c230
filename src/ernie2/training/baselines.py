"""Baselines of held-out evaluation: the majority class of training, the best constant answer, one feature's label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SMOOTHING = 0.1
"""Added to every count where the feature baseline gives probabilities (for its loss)."""


@dataclass(frozen=True)
class FeatureBaseline:
    """Label frequencies by feature, from train instances; features never seen fall back on all labels together.

    `features` (f,) int64, ascending: those seen; `totals` (f,) and `best` (f,) int64: how often each was seen, and its
    commonest label. `pairs` (n,) int64, ascending: row of a feature · `classes` + label of every pair that was seen;
    `counts` (n,): how often. `overall` (classes,): how often each label was seen. `majority`: the commonest label. Of
    labels that are equally common, the one seen first.
    """

    features: Array
    totals: Array
    best: Array
    pairs: Array
    counts: Array
    overall: Array
    majority: int
    classes: int

    @staticmethod
    def fit(features: Array, labels: Array, classes: int) -> FeatureBaseline:
        """features (p,) int64, labels (p,) int64 below `classes`."""
        known, rows, totals = np.unique(features, return_inverse=True, return_counts=True)
        pairs, first, counts = np.unique(rows * classes + labels, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts, pairs // classes))  # by feature, the commonest label first
        _, begins = np.unique(pairs[order] // classes, return_index=True)
        overall = np.bincount(labels, minlength=classes)
        commonest = np.isin(labels, np.flatnonzero(overall == overall.max()))
        majority = int(labels[commonest.argmax()]) if len(labels) else 0
        return FeatureBaseline(known, totals, pairs[order][begins] % classes, pairs, counts, overall, majority, classes)

    @property
    def entropy(self) -> float:
        """Entropy in nats of the labels by themselves; for masking, the unigram entropy."""
        shares = self.overall[self.overall > 0] / self.overall.sum()
        return float(-(shares * np.log(shares)).sum())

    def predict(self, features: Array) -> Array:
        """(p,) int64: the commonest label of each feature."""
        rows, seen = _found(self.features, features)
        return np.where(seen, self.best[rows], self.majority)

    def losses(self, features: Array, labels: Array) -> Array:
        """(p,) float64: minus the log of the probability the baseline gives the right label, smoothed."""
        rows, seen = _found(self.features, features)
        at, paired = _found(self.pairs, rows * self.classes + labels)
        counts = np.where(seen, np.where(paired, self.counts[at], 0), self.overall[labels])
        totals = np.where(seen, self.totals[rows], self.overall.sum())
        losses: Array = -np.log((counts + SMOOTHING) / (totals + SMOOTHING * self.classes))
        return losses


def _found(ascending: Array, values: Array) -> tuple[Array, Array]:
    """Where each of `values` stands in `ascending`, and whether it does; those that do not stand at 0."""
    at = np.searchsorted(ascending, values)
    at[at == len(ascending)] = 0
    found = ascending[at] == values
    return np.where(found, at, 0), found


def baseline_figures(
    fitted: FeatureBaseline, features: Array, labels: Array, feature: str, with_f1: bool
) -> dict[str, dict[str, Any]]:
    """Figures of the three baselines on held-out positions, by their keys in the records.

    `features`, `labels` (p,); `feature` names the feature in words; `with_f1`: also macro-F1, where there are classes
    and not a vocabulary. They depend on the data alone, so a run computes them once.
    """
    constant = int(np.bincount(labels).argmax())
    answers = {
        "majority": np.full_like(labels, fitted.majority),
        "constant": np.full_like(labels, constant),
        "cheap": fitted.predict(features),
    }
    figures: dict[str, dict[str, Any]] = {
        name: {
            "accuracy": float((answer == labels).mean()),
            "macro_f1": macro_f1(labels, answer) if with_f1 else None,
        }
        for name, answer in answers.items()
    }
    loss = float(fitted.losses(features, labels).mean())
    figures["cheap"] |= {"rule": feature, "loss": loss, "entropy": fitted.entropy}
    return figures


def macro_f1(labels: Array, predicted: Array) -> float:
    """Unweighted mean of the F1 of every class that occurs in `labels` or `predicted`, (p,) int64 each."""
    classes = 1 + int(max(labels.max(), predicted.max()))
    right = np.bincount(labels[labels == predicted], minlength=classes)
    named = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    occurs = named > 0
    return float((2 * right[occurs] / named[occurs]).mean())
