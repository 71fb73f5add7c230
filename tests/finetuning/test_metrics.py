"""Metrics against values by hand, independent formulas on random input, and seqeval where it is installed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.datasets.entities import entities
from ernie2.datasets.examples import Answer, Example, LabelledData
from ernie2.errors import DataError
from ernie2.finetuning.metrics import (
    accuracy,
    binary_f1,
    entity_f1,
    macro_f1,
    matthews,
    mean_reciprocal_rank,
    measure,
    micro_f1,
    pearson,
    spearman,
    token_accuracy,
)

TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), min_size=1, max_size=12)
TAGGED = st.lists(TAGS.flatmap(lambda tags: st.tuples(st.just(tags), st.permutations(tags))), min_size=1, max_size=5)


def test_values_by_hand() -> None:
    gold, predicted = (
        list("1110"),
        list("1101"),
    )  # 2 true positives, 1 false negative, 1 false positive, no true negative
    assert accuracy(gold, predicted) == 50.0
    assert binary_f1(gold, predicted, "1") == pytest.approx(100 * 4 / 6)
    assert matthews(gold, predicted) == pytest.approx(-100 / 3)  # (2·0 - 1·1) / sqrt(3·3·1·1)
    assert macro_f1(gold, predicted) == pytest.approx(100 * (4 / 6 + 0) / 2)
    assert micro_f1([("a", "b"), ()], [("a",), ("b",)]) == pytest.approx(50.0)  # 2 · 1 / (2 + 2)
    assert token_accuracy([("O", "B"), ("O",)], [("O", "O"), ("O",)]) == pytest.approx(200 / 3)
    assert pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(98.19805060619659)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(80.0)  # 1 - 6·2 / (4·15)


def test_the_f1_of_glue_is_that_of_one_class() -> None:
    assert binary_f1(["0", "0", "1"], ["0", "0", "0"], "1") == 0.0
    assert binary_f1(["0", "0", "1"], ["0", "0", "0"], "0") == pytest.approx(80.0)


def test_a_correlation_with_a_constant_is_not_defined() -> None:
    for metric in (pearson, spearman):
        assert math.isnan(metric([1.0, 2.0], [3.0, 3.0]))
        assert math.isnan(metric([1.0], [3.0]))
        assert math.isnan(metric([1.0, 2.0], [math.nan, 3.0]))
    assert matthews(["0", "1"], ["1", "1"]) == 0.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_matthews_and_f1_equal_their_formulas(pairs: list[tuple[bool, bool]]) -> None:
    gold, predicted = [one for one, _ in pairs], [other for _, other in pairs]
    tp, fp = sum(a and b for a, b in pairs), sum(b and not a for a, b in pairs)
    fn, tn = sum(a and not b for a, b in pairs), sum(not a and not b for a, b in pairs)
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(gold, predicted) == pytest.approx(100 * (tp * tn - fp * fn) / below if below else 0.0)
    assert binary_f1(gold, predicted, True) == pytest.approx(200 * tp / (2 * tp + fp + fn) if tp else 0.0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40))
def test_spearman_is_pearson_of_ranks_and_pearson_is_numpys(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, float).T
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])

    assert pearson(one, other) == pytest.approx(100 * np.corrcoef(one, other)[0, 1], abs=1e-9)
    assert spearman(one, other) == pytest.approx(100 * np.corrcoef(ranks(one), ranks(other))[0, 1], abs=1e-9)


def test_an_entity_counts_only_with_its_kind_and_both_ends() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"]]
    assert entity_f1(gold, gold) == 100.0
    assert entity_f1(gold, [["B-PER", "O", "O", "B-LOC"]]) == pytest.approx(50.0)
    assert entity_f1(gold, [["B-LOC", "I-LOC", "O", "B-LOC"]]) == pytest.approx(50.0)
    assert entity_f1(gold, [["O", "O", "O", "O"]]) == 0.0
    assert entity_f1([["O"]], [["O"]]) == 100.0


@given(TAGGED)
def test_entity_f1_equals_seqeval(pairs: list[tuple[list[str], list[str]]]) -> None:
    seqeval = pytest.importorskip("seqeval.metrics")
    from seqeval.scheme import IOB2

    gold, predicted = [one for one, _ in pairs], [list(other) for _, other in pairs]
    if not any(entities(tags) for tags in (*gold, *predicted)):
        return
    strict = seqeval.f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0)
    assert entity_f1(gold, predicted) == pytest.approx(100 * strict)
    assert entity_f1(gold, predicted, strict=False) == pytest.approx(100 * seqeval.f1_score(gold, predicted))


def test_reciprocal_ranks_by_hand() -> None:
    groups = ["a", "a", "a", "b", "b", "c"]
    relevant = [False, True, False, True, False, False]
    scores = [0.9, 0.5, 0.1, 0.7, 0.8, 0.3]
    assert mean_reciprocal_rank(groups, relevant, scores) == pytest.approx(100 * (1 / 2 + 1 / 2 + 0) / 3)
    # of equal scores the first in the file ranks first, and candidates need not stand together
    assert mean_reciprocal_rank(["a", "b", "a"], [False, True, True], [0.5, 0.1, 0.5]) == pytest.approx(75.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 4)), min_size=1, max_size=30))
def test_reciprocal_ranks_equal_a_count_of_what_ranks_before(rows: list[tuple[str, bool, int]]) -> None:
    groups, relevant, scores = ([row[part] for row in rows] for part in range(3))
    ranks = []
    for group in set(groups):
        mine = [(score, hit) for one, hit, score in rows if one == group]
        hits = [
            1 + sum(other > score or (other == score and j < i) for j, (other, _) in enumerate(mine))
            for i, (score, hit) in enumerate(mine)
            if hit
        ]
        ranks.append(1 / min(hits) if hits else 0.0)
    expected = 100 * sum(ranks) / len(ranks)
    assert mean_reciprocal_rank(groups, relevant, [float(score) for score in scores]) == pytest.approx(expected)


def data(head: str, metrics: tuple[str, ...], **more: object) -> LabelledData:
    return LabelledData("x", head, ("0", "1"), metrics, {}, **more)  # type: ignore[arg-type]


def test_every_metric_of_a_data_set_is_measured_in_its_order() -> None:
    examples = [Example(str(i), "q", "t", label, group="g") for i, label in enumerate("010")]
    pairs = data("classification", ("mrr", "f1"), positive="1")
    assert measure(pairs, examples, ["0", "1", "1"], [0.1, 0.8, 0.9]) == pytest.approx({"mrr": 50.0, "f1": 200 / 3})
    with pytest.raises(DataError, match="needs a score for each"):
        measure(pairs, examples, ["0", "1", "1"])


def test_answers_are_scored_by_place_even_where_ids_are_the_same() -> None:
    examples = [Example("same", "谁？", "李白", (Answer(text, 0),)) for text in ("李白", "李")]
    spans = data("span", ("exact_match", "answer_f1"), answer_rules="cmrc2018")
    assert measure(spans, examples, ["李白", "李白"]) == pytest.approx({"exact_match": 50.0, "answer_f1": 500 / 6})


def test_examples_without_labels_or_predictions_are_refused() -> None:
    with pytest.raises(DataError, match="2 predictions for 1 examples"):
        measure(data("classification", ("accuracy",)), [Example("0", "a", label="1")], ["1", "1"])
    with pytest.raises(DataError, match="needs examples with labels"):
        measure(data("classification", ("accuracy",)), [Example("0", "a")], ["1"])
