"""What one answer for every example would score: the majority baseline that stands beside a model's figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from ernie2.datasets.examples import LabelledData
from ernie2.finetuning.metrics import Prediction, measure

_NOT_MEASURED = ("mrr", "entity_f1")
"""Ranks need scores, and a constant tag finds no entity."""


def majority_figures(data: LabelledData, split: str) -> dict[str, float]:
    """metric → percent of the split's commonest label (of tags, the commonest tag) given to every example.

    Empty for spans and for regression: no answer is common, and a constant has no correlation.
    """
    metrics = tuple(name for name in data.metrics if name not in _NOT_MEASURED)
    if data.head in ("span", "regression") or not metrics:
        return {}
    examples = data.splits[split].examples
    labels: list[Any] = [example.label for example in examples]
    if data.head == "tagging":
        ((tag, _),) = Counter(tag for tags in labels for tag in tags).most_common(1)
        constant: list[Prediction] = [(tag,) * len(tags) for tags in labels]
    else:
        ((label, _),) = Counter(labels).most_common(1)
        constant = [label] * len(labels)
    return measure(replace(data, metrics=metrics), examples, constant)
