"""Baselines of held-out evaluation: the majority class of training, the best constant answer, one feature's label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
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

    `by_feature`: feature → label → count; `overall`: label → count; `classes`: number of labels.
    """

    by_feature: Mapping[int, Counter[int]]
    overall: Counter[int]
    classes: int

    @staticmethod
    def fit(features: Array, labels: Array, classes: int) -> FeatureBaseline:
        """features (p,) int64, labels (p,) int64."""
        by_feature: dict[int, Counter[int]] = {}
        for feature, label in zip(features.tolist(), labels.tolist(), strict=True):
            by_feature.setdefault(feature, Counter())[label] += 1
        return FeatureBaseline(by_feature, Counter(labels.tolist()), classes)

    @property
    def majority(self) -> int:
        """The commonest label."""
        return self.overall.most_common(1)[0][0] if self.overall else 0

    @property
    def entropy(self) -> float:
        """Entropy in nats of the labels by themselves; for masking, the unigram entropy."""
        total = self.overall.total()
        return -sum(count / total * math.log(count / total) for count in self.overall.values())

    def predict(self, features: Array) -> Array:
        """(p,) int64: the commonest label of each feature."""
        best = {feature: counts.most_common(1)[0][0] for feature, counts in self.by_feature.items()}
        majority = self.majority
        return np.array([best.get(feature, majority) for feature in features.tolist()], np.int64)

    def losses(self, features: Array, labels: Array) -> Array:
        """(p,) float64: minus the log of the probability the baseline gives the right label, smoothed."""
        return np.array(
            [
                -math.log(
                    ((counts := self.by_feature.get(feature, self.overall))[label] + SMOOTHING)
                    / (counts.total() + SMOOTHING * self.classes)
                )
                for feature, label in zip(features.tolist(), labels.tolist(), strict=True)
            ]
        )


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
    """Unweighted mean of the classes' F1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
