"""Metrics in percent, as defined by GLUE, CoNLL and the ERNIE scripts.

F1 and Matthews correlation are implemented as in scikit-learn, whose import takes longer than most evaluations. Pearson
and Spearman correlation come from scipy. Entities follow seqeval's strict mode, by tag scheme. The correlation with a
constant is undefined: nan, not 0, so that collapsed runs are visible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ernie2.datasets.examples import Example, LabelledData
from ernie2.datasets.tag_schemes import Scheme, entities
from ernie2.errors import DataError
from ernie2.finetuning.scoring.answers import (
    HAS_ANSWER,
    NO_ANSWER,
    RULES,
    accepted_answers,
    score_answers,
    score_with_unanswerable,
)

PredictedValue = str | float | tuple[str, ...]
"""A class name, a number, class names, tags, or the text of an answer."""
CORRELATIONS = ("matthews", "pearson", "spearman")
"""Metrics from -100 to 100; the others are from 0 to 100."""
_NO_MAJORITY = ("mrr", "entity_f1")
"""mrr needs scores; a constant tag marks no entity."""


def compute_metrics(
    data: LabelledData,
    examples: Sequence[Example],
    predictions: Sequence[PredictedValue],
    scores: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return metric → percent for the metrics of `data`, over labelled `examples`.

    Metrics over answerable or unanswerable questions are omitted without such questions. `predictions[i]` belongs to
    `examples[i]`. `scores[i]`: probability of the positive class, or an increasing function of it; only for mrr.
    Raises `DataError` for unlabelled or no examples, lengths that differ, and mrr without scores.
    """
    if len(examples) != len(predictions):
        raise DataError(
            f"{data.name}: {len(predictions)} predictions for {len(examples)} examples; give one per example."
        )
    gold = [example.label for example in examples]
    if not examples or any(label is None for label in gold):
        raise DataError(f"{data.name}: these examples have no labels, which metrics need. Use another split.")
    by_name: dict[str, float] = {}
    if data.head == "span":
        texts, rules = [str(text) for text in predictions], RULES[data.answer_rules or "squad"]
        if data.unanswerable:
            by_name = score_with_unanswerable(examples, texts, rules)
        else:
            values = score_answers([accepted_answers(example) for example in examples], texts, rules)
            by_name = dict(zip(("exact_match", "answer_f1"), values, strict=True))
    for name in data.metrics:
        if name == "mrr":
            if scores is None:
                raise DataError(f"{data.name}: mrr needs a score per candidate.")
            groups = [example.group or "" for example in examples]
            by_name[name] = mean_reciprocal_rank(groups, [label == data.positive for label in gold], scores)
        elif name == "f1":
            by_name[name] = binary_f1(gold, predictions, data.positive)
        elif name == "entity_f1":
            if data.scheme is None:
                raise DataError(f"{data.name}: entity_f1 needs a tag scheme. Give one with --scheme.")
            by_name[name] = entity_f1(_tags(gold), _tags(predictions), data.scheme)
        elif name not in by_name and name not in (*HAS_ANSWER, *NO_ANSWER):
            by_name[name] = SIMPLE_METRICS[name](gold, predictions)
    return {name: by_name[name] for name in data.metrics if name in by_name}


def majority_scores(data: LabelledData, split: str) -> dict[str, float]:
    """Return metric → percent of the majority baseline: the most frequent label, or tag, for every example.

    Empty for spans and regression, where there is no majority or no correlation with a constant.
    """
    metrics = tuple(name for name in data.metrics if name not in _NO_MAJORITY)
    if data.head in ("span", "regression") or not metrics:
        return {}
    examples = data.splits[split].examples
    labels: list[Any] = [example.label for example in examples]
    if data.head == "tagging":
        ((tag, _),) = Counter(tag for tags in labels for tag in tags).most_common(1)
        constant: list[PredictedValue] = [(tag,) * len(tags) for tags in labels]
    else:
        ((label, _),) = Counter(labels).most_common(1)
        constant = [label] * len(labels)
    return compute_metrics(replace(data, metrics=metrics), examples, constant)


def accuracy(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Return the percentage of predictions that equal the label."""
    return 100.0 * sum(bool(one == other) for one, other in zip(gold, predicted, strict=True)) / len(gold)


def token_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Return the percentage of tokens with the correct tag; sequences must have equal lengths."""
    return accuracy([tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags])


def matthews(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Return Matthews correlation in percent, for any number of classes; 0 if one side has a single class."""
    truth, guess = Counter(gold), Counter(predicted)
    if len(truth) < 2 or len(guess) < 2:
        return 0.0
    count, correct = len(gold), sum(one == other for one, other in zip(gold, predicted, strict=True))
    covariance = correct * count - sum(truth[name] * guess[name] for name in truth)
    spread = math.prod(count**2 - sum(each**2 for each in side.values()) for side in (truth, guess))
    return float(100.0 * covariance / math.sqrt(spread))


def binary_f1(gold: Sequence[Any], predicted: Sequence[Any], positive: Any) -> float:
    """Return F1 of the class `positive` in percent, as GLUE scores MRPC and QQP; 0 if it does not occur."""
    return 100.0 * _f1_by_class(gold, predicted).get(positive, 0.0)


def macro_f1(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Return the mean F1 of the classes in labels or predictions, in percent."""
    by_class = _f1_by_class(gold, predicted)
    return 100.0 * sum(by_class.values()) / len(by_class)


def _f1_by_class(gold: Sequence[Any], predicted: Sequence[Any]) -> dict[Any, float]:
    """Return class -> F1 in 0–1, for every class that occurs."""
    named = Counter(gold) + Counter(predicted)
    right = Counter(one for one, other in zip(gold, predicted, strict=True) if one == other)
    return {name: 2 * right[name] / count for name, count in named.items()}


def micro_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """F1 over all (example, class) pairs, in percent, for examples with any number of classes; 100 with no pair."""
    expected, actual = ({(i, name) for i, names in enumerate(side) for name in names} for side in (gold, predicted))
    return _f1(len(expected), len(actual), len(expected & actual)) if expected or actual else 100.0


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Return Pearson correlation in percent; nan if a side is constant, or for fewer than two examples."""
    return _correlation("pearsonr", gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Return Spearman's rank correlation in percent, with mean ranks for ties; nan as for `pearson`."""
    return _correlation("spearmanr", gold, predicted)


def mean_reciprocal_rank(groups: Sequence[str], relevant: Sequence[bool], scores: Sequence[float]) -> float:
    """Return 100 · mean over groups of 1 / rank of the first relevant candidate, by descending score.

    As in the ERNIE scripts, ties keep the order of the file, and a group without a relevant candidate counts as 0. The
    candidates of a group need not be adjacent.
    """
    ranked: dict[str, list[tuple[float, bool]]] = {}
    for group, hit, score in zip(groups, relevant, scores, strict=True):
        ranked.setdefault(group, []).append((-float(score), hit))
    total = 0.0
    for candidates in ranked.values():
        hits = [hit for _, hit in sorted(candidates, key=lambda candidate: candidate[0])]
        total += 1.0 / (hits.index(True) + 1) if True in hits else 0.0
    return 100.0 * total / len(ranked)


def entity_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: Scheme = "IOB2") -> float:
    """Return F1 in percent over the entities of all sequences; 0 without entities on both sides, as in seqeval.

    An entity is correct if its kind and both ends are.
    """
    expected, actual = (
        {(row, *entity) for row, tags in enumerate(side) for entity in entities(tags, scheme)}
        for side in (gold, predicted)
    )
    return _f1(len(expected), len(actual), len(expected & actual)) if expected or actual else 0.0


def _f1(gold: int, predicted: int, correct: int) -> float:
    return 200.0 * correct / (gold + predicted)


def _correlation(name: str, gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Return the coefficient `scipy.stats.<name>` in percent; nan if undefined."""
    from scipy import stats

    one, other = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0 or not np.isfinite(other).all():
        return math.nan
    return 100.0 * float(getattr(stats, name)(one, other).statistic)


def _tags(labels: Sequence[Any]) -> list[tuple[str, ...]]:
    return [tuple(map(str, label)) for label in labels]


SIMPLE_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": accuracy,
    "token_accuracy": token_accuracy,
    "matthews": matthews,
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "pearson": pearson,
    "spearman": spearman,
}
