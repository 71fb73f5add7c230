"""Unanswerable questions, as in SQuAD 2.0: when a span model answers nothing, and how such answers are scored.

The null score of a question is the score of [CLS] less that of the best answer. A question whose null score is above a
threshold gets the empty answer. The threshold is the one with the best F1 on the development set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ernie2.datasets.examples import Answer, Example
from ernie2.finetuning.scoring.answers import AnswerRules, compare, score_answers

HAS_ANSWER = ("has_answer_exact_match", "has_answer_f1")
NO_ANSWER = ("no_answer_exact_match", "no_answer_f1")
"""Metrics over the answerable and the unanswerable questions: HasAns and NoAns of the official evaluation."""


def choose_threshold(
    examples: Sequence[Example], texts: Sequence[str], null_scores: Sequence[float], rules: AnswerRules
) -> float:
    """Return the threshold of the null score with the highest F1 over labelled `examples`, the lowest of equals.

    `texts`: the best answer to each that is not empty; `null_scores`: its null score. The official script takes the
    null score of a question itself; this is the middle between it and the next higher one, so that rounding moves no
    question across.
    """
    references = [accepted(example, rules) for example in examples]
    answered = np.array([compare(ones, text, rules)[1] for ones, text in zip(references, texts, strict=True)])
    empty = np.array([compare(ones, "", rules)[1] for ones in references])
    values, group = np.unique(np.asarray(null_scores, np.float64), return_inverse=True)
    gains = np.bincount(group, weights=answered - empty, minlength=len(values))
    best = int(np.argmax(np.round(np.concatenate([[0.0], np.cumsum(gains)]), 9)))  # the first `best` groups answered
    edges = np.concatenate([[values[0] - 2.0], values, [values[-1] + 2.0]])
    return float((edges[best] + edges[best + 1]) / 2)


def score_with_nulls(examples: Sequence[Example], texts: Sequence[str], rules: AnswerRules) -> dict[str, float]:
    """Return EM and F1 in percent over all questions, and over those of each kind that there are.

    An unanswerable question is right with an empty answer. As in the official evaluation, accepted answers of which
    nothing is left without articles and punctuation do not count.
    """
    figures: dict[str, float] = {}
    kinds = {
        ("exact_match", "answer_f1"): examples,
        HAS_ANSWER: [example for example in examples if example.label],
        NO_ANSWER: [example for example in examples if not example.label],
    }
    by_example = {id(example): text for example, text in zip(examples, texts, strict=True)}
    for names, some in kinds.items():
        if some:
            references = {str(number): accepted(example, rules) for number, example in enumerate(some)}
            predictions = {str(number): by_example[id(example)] for number, example in enumerate(some)}
            figures |= dict(zip(names, score_answers(references, predictions, rules), strict=True))
    return figures


def accepted(example: Example, rules: AnswerRules) -> tuple[str, ...]:
    """Return the accepted answers of which something is left to compare; () for an unanswerable question."""
    label = example.label if isinstance(example.label, tuple) else ()
    return tuple(one.text for one in label if isinstance(one, Answer) and rules.normal(one.text))
