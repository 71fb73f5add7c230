"""Exact match and F1 of extracted answers, as in the official scripts of CMRC 2018, DuReader-robust and SQuAD.

The Chinese scripts split texts into units: single Chinese characters, and parts of the text between them. F1 counts the
longest *contiguous* run of units that prediction and reference share, not a bag or a subsequence.

Unanswerable questions are scored as in SQuAD 2.0. The null score of a question is the score of [CLS] minus that of the
best answer. A question with a null score above a threshold gets the empty answer. The threshold is the one with the
best F1 on the development set.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

import numpy as np

from ernie2.datasets.examples import Answer, Example

_CMRC_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_DUREADER_MARKS = frozenset(":_`(),|，。：？！“”；’《》·、「」（）－～『』")
_CMRC_CHARACTER = re.compile("([\u4e00-\u9fa5])")
# the Chinese blocks of BERT's tokeniser, and '=', which the script also splits off
_DUREADER_CHARACTER = re.compile(
    "([=\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f])"
)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
HAS_ANSWER = ("has_answer_exact_match", "has_answer_f1")
NO_ANSWER = ("no_answer_exact_match", "no_answer_f1")
"""Metrics over answerable and over unanswerable questions: HasAns and NoAns of the official evaluation."""


@dataclass(frozen=True)
class AnswerRules:
    """How two answers are compared.

    Exact match compares `normalise(text)`. F1 splits texts into units with `split` and counts the shared ones of two
    lists with `count_shared`.
    """

    normalise: Callable[[str], str]
    split: Callable[[str], list[str]]
    count_shared: Callable[[Sequence[str], Sequence[str]], int]


def score_answers(
    references: Sequence[Sequence[str]], predictions: Sequence[str], rules: AnswerRules
) -> tuple[float, float]:
    """Return (exact match, F1) in percent over all questions, at least one.

    Each metric uses the best of several references.
    """
    pairs = [score_answer(ones, text, rules) for ones, text in zip(references, predictions, strict=True)]
    return 100.0 * sum(exact for exact, _ in pairs) / len(pairs), 100.0 * sum(f1 for _, f1 in pairs) / len(pairs)


def score_answer(references: Sequence[str], prediction: str, rules: AnswerRules) -> tuple[float, float]:
    """Return (exact match 0 or 1, F1 in 0–1) of one prediction against all accepted answers.

    Without accepted answers the question is unanswerable, and an empty prediction is correct.
    """
    if not references:
        return float(not rules.normalise(prediction)), float(not rules.split(prediction))
    exact = any(rules.normalise(reference) == rules.normalise(prediction) for reference in references)
    predicted = rules.split(prediction)
    best = 0.0
    for reference in references:
        expected = rules.split(reference)
        if shared := rules.count_shared(expected, predicted):
            # 2PR / (P + R) with P = shared / predicted, R = shared / expected
            best = max(best, 2 * shared / (len(expected) + len(predicted)))
    return float(exact), best


def longest_common_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common contiguous run: longest_common_run('abxcd', 'abcd') -> 2."""
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


def count_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the size of the multiset intersection of the units."""
    return sum((Counter(one) & Counter(other)).values())


def cmrc_units(text: str) -> list[str]:
    """'1998年10月' -> ['1998', '年', '10', '月']; other text is split into words by NLTK."""
    return [
        unit
        for part in _CMRC_CHARACTER.split(_cmrc_normalise(text))
        for unit in ([part] if _CMRC_CHARACTER.fullmatch(part) else _words(part))
    ]


def dureader_units(text: str) -> list[str]:
    """'约 3.5 米' -> ['约', ' 3.5 ', '米']; other text stays one unit, with its spaces."""
    return [part for part in _DUREADER_CHARACTER.split(_dureader_normalise(text)) if part]


def squad_units(text: str) -> list[str]:
    """'The U.S. Army' -> ['us', 'army']: lower-case words without punctuation and articles."""
    return _squad_normalise(text).split()


def _cmrc_normalise(text: str) -> str:
    return "".join(char for char in text.lower().strip() if char not in _CMRC_MARKS)


def _dureader_normalise(text: str) -> str:
    return "".join(char for char in text.lower() if char not in _DUREADER_MARKS)


def _squad_normalise(text: str) -> str:
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _words(text: str) -> list[str]:
    return list(_word_tokenizer()(text)) if text.strip() else []


@cache
def _word_tokenizer() -> Callable[[str], list[str]]:
    # The script calls nltk.word_tokenize, which first splits sentences and needs downloaded data for that. Only a
    # sentence end inside Latin text could give another result here.
    from nltk.tokenize.destructive import NLTKWordTokenizer  # type: ignore[import-untyped]

    tokenize: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    return tokenize


def choose_threshold(
    examples: Sequence[Example], texts: Sequence[str], null_scores: Sequence[float], rules: AnswerRules
) -> float:
    """Return the threshold of the null score with the highest F1 over labelled `examples`; ties: the lowest.

    `texts`: the best non-empty answers; `null_scores`: their null scores. The official script returns the null score of
    a question. This returns the midpoint to the next higher one, so that rounding does not change answers.
    """
    references = [accepted_answers(example, rules) for example in examples]
    answered = np.array([score_answer(ones, text, rules)[1] for ones, text in zip(references, texts, strict=True)])
    empty = np.array([score_answer(ones, "", rules)[1] for ones in references])
    values, group = np.unique(np.asarray(null_scores, np.float64), return_inverse=True)
    gains = np.bincount(group, weights=answered - empty, minlength=len(values))
    best = int(
        np.argmax(np.round(np.concatenate([[0.0], np.cumsum(gains)]), 9))
    )  # the first `best` groups are answered
    edges = np.concatenate([[values[0] - 2.0], values, [values[-1] + 2.0]])
    return float((edges[best] + edges[best + 1]) / 2)


def score_with_unanswerable(examples: Sequence[Example], texts: Sequence[str], rules: AnswerRules) -> dict[str, float]:
    """Return exact match and F1 in percent over all questions, the answerable and the unanswerable ones.

    Only an empty answer to an unanswerable question is correct. As in the official evaluation, accepted answers that
    consist only of articles and punctuation do not count.
    """
    metrics: dict[str, float] = {}
    pairs = [(example, accepted_answers(example, rules), text) for example, text in zip(examples, texts, strict=True)]
    for names, subset in (
        (("exact_match", "answer_f1"), pairs),
        (HAS_ANSWER, [pair for pair in pairs if pair[0].label]),
        (NO_ANSWER, [pair for pair in pairs if not pair[0].label]),
    ):
        if subset:
            _, references, predictions = zip(*subset, strict=True)
            metrics |= dict(zip(names, score_answers(references, predictions, rules), strict=True))
    return metrics


def accepted_answers(example: Example, rules: AnswerRules | None = None) -> tuple[str, ...]:
    """Return the accepted answers of an example, () if it is unanswerable.

    With `rules`, answers that are empty after normalisation are dropped.
    """
    label = example.label if isinstance(example.label, tuple) else ()
    texts = (one.text for one in label if isinstance(one, Answer))
    return tuple(text for text in texts if rules is None or rules.normalise(text))


RULES: dict[str, AnswerRules] = {
    "cmrc2018": AnswerRules(_cmrc_normalise, cmrc_units, longest_common_run),
    "dureader_robust": AnswerRules(_dureader_normalise, dureader_units, longest_common_run),
    "squad": AnswerRules(_squad_normalise, squad_units, count_common),
}
"""cmrc2018 also scores DRCD (script version 6); squad is for users' own English questions."""
