"""Scores of predictions, in percent, to the official definitions of GLUE, CoNLL and the ERNIE scripts.

F1 and Matthews correlation are scikit-learn's definitions, whose import takes longer than most evaluations; Pearson and
Spearman are scipy's; entities are those of seqeval's strict mode, by tag scheme. A correlation with a constant is not
defined and is nan, never 0: a run that collapsed shows as such.
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
"""By head: a class name, a number, class names or tags, the text of an answer."""
CORRELATIONS = ("matthews", "pearson", "spearman")
"""Metrics of -100 to 100; the others are 0 to 100."""
_NO_MAJORITY = ("mrr", "entity_f1")
"""Ranks need scores, and a constant tag finds no entity."""


def compute_metrics(
    data: LabelledData,
    examples: Sequence[Example],
    predictions: Sequence[PredictedValue],
    scores: Sequence[float] | None = None,
) -> dict[str, float]:
    """metric → percent, for every metric of `data`, over labelled `examples`.

    Those of answerable or unanswerable questions are left out where there are none.

    `predictions[i]` belongs to `examples[i]`; `scores[i]` is how much the model holds for the positive class (a
    probability or any increasing function of it), needed by mrr only. Raises `DataError` for examples without labels,
    lengths that differ, none at all, and mrr without scores.
    """
    if len(examples) != len(predictions):
        raise DataError(f"{data.name}: {len(predictions)} predictions for {len(examples)} examples; each needs one.")
    gold = [example.label for example in examples]
    if not examples or any(label is None for label in gold):
        raise DataError(f"{data.name}: a metric needs examples with labels; these have none. Use another split.")
    by_name: dict[str, float] = {}
    if data.head == "span":
        texts, rules = [str(text) for text in predictions], RULES[data.answer_rules or "squad"]
        if data.unanswerable:
            by_name = score_with_unanswerable(examples, texts, rules)
        else:
            figures = score_answers([accepted_answers(example) for example in examples], texts, rules)
            by_name = dict(zip(("exact_match", "answer_f1"), figures, strict=True))
    for name in data.metrics:
        if name == "mrr":
            if scores is None:
                raise DataError(f"{data.name}: mrr ranks candidates and needs a score for each of them.")
            groups = [example.group or "" for example in examples]
            by_name[name] = mean_reciprocal_rank(groups, [label == data.positive for label in gold], scores)
        elif name == "f1":
            by_name[name] = binary_f1(gold, predictions, data.positive)
        elif name == "entity_f1":
            if data.scheme is None:
                raise DataError(f"{data.name}: entity_f1 needs a tag scheme; name it with --scheme.")
            by_name[name] = entity_f1(_tags(gold), _tags(predictions), data.scheme)
        elif name not in by_name and name not in (*HAS_ANSWER, *NO_ANSWER):
            by_name[name] = SIMPLE_METRICS[name](gold, predictions)
    return {name: by_name[name] for name in data.metrics if name in by_name}


def majority_scores(data: LabelledData, split: str) -> dict[str, float]:
    """metric → percent of the split's commonest label (of tags, the commonest tag) given to every example.

    Empty for spans and for regression: no answer is common, and a constant has no correlation.
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
    """Percent of predictions that equal the label."""
    return 100.0 * sum(bool(one == other) for one, other in zip(gold, predicted, strict=True)) / len(gold)


def token_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Percent of tokens with the right tag; sequences are of equal lengths."""
    return accuracy([tag for tags in gold for tag in tags], [tag for tags in predicted for tag in tags])


def matthews(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Matthews correlation in percent, of any number of classes; 0 where either side knows one class only."""
    truth, guess = Counter(gold), Counter(predicted)
    if len(truth) < 2 or len(guess) < 2:
        return 0.0
    count, right = len(gold), sum(one == other for one, other in zip(gold, predicted, strict=True))
    together = right * count - sum(truth[name] * guess[name] for name in truth)
    spread = math.prod(count**2 - sum(each**2 for each in side.values()) for side in (truth, guess))
    return float(100.0 * together / math.sqrt(spread))


def binary_f1(gold: Sequence[Any], predicted: Sequence[Any], positive: Any) -> float:
    """F1 of the class `positive` in percent, as GLUE scores MRPC and QQP; 0 where it is nowhere."""
    return 100.0 * _f1_by_class(gold, predicted).get(positive, 0.0)


def macro_f1(gold: Sequence[Any], predicted: Sequence[Any]) -> float:
    """Mean F1 of the classes that occur in labels or predictions, in percent."""
    by_class = _f1_by_class(gold, predicted)
    return 100.0 * sum(by_class.values()) / len(by_class)


def _f1_by_class(gold: Sequence[Any], predicted: Sequence[Any]) -> dict[Any, float]:
    """class -> F1, 0 to 1, of every class that occurs."""
    named = Counter(gold) + Counter(predicted)
    right = Counter(one for one, other in zip(gold, predicted, strict=True) if one == other)
    return {name: 2 * right[name] / count for name, count in named.items()}


def micro_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """F1 over all (example, class) pairs, in percent, for examples with any number of classes; 100 with no pair."""
    marked, found = ({(i, name) for i, names in enumerate(side) for name in names} for side in (gold, predicted))
    return _f1(len(marked), len(found), len(marked & found)) if marked or found else 100.0


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson correlation in percent; nan where a side is constant or there are fewer than two examples."""
    return _correlation("pearsonr", gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Spearman's rank correlation in percent, ties at their mean rank; nan as for `pearson`."""
    return _correlation("spearmanr", gold, predicted)


def mean_reciprocal_rank(groups: Sequence[str], relevant: Sequence[bool], scores: Sequence[float]) -> float:
    """100 · mean over groups of 1 / rank of the first relevant candidate, ranked by falling score.

    As the ERNIE scripts do it: candidates of equal score keep the order of the file, and a group without a relevant
    candidate counts with 0. The candidates of a group need not stand together.
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
    """Return the F1 in percent over the entities of all sequences; 0 where neither side has one, as in seqeval.

    An entity is right when kind and both ends are.
    """
    marked, found = (
        {(row, *entity) for row, tags in enumerate(side) for entity in entities(tags, scheme)}
        for side in (gold, predicted)
    )
    return _f1(len(marked), len(found), len(marked & found)) if marked or found else 0.0


def _f1(gold: int, predicted: int, right: int) -> float:
    return 200.0 * right / (gold + predicted)


def _correlation(name: str, gold: Sequence[float], predicted: Sequence[float]) -> float:
    """The coefficient of `scipy.stats` called `name`, in percent; nan where it is not defined."""
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
