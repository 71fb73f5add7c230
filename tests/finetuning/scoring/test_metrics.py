"""Metrics against values by hand, independent formulas on random input, and seqeval where it is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, matthews_corrcoef

import tiny_finetuning as tiny
from ernie2.datasets.examples import Answer, Example, Head, LabelledData
from ernie2.errors import DataError
from ernie2.finetuning.scoring.metrics import (
    accuracy,
    binary_f1,
    compute_metrics,
    entity_f1,
    macro_f1,
    majority_scores,
    matthews,
    mean_reciprocal_rank,
    micro_f1,
    pearson,
    spearman,
    token_accuracy,
)

PREFIXES = {"IOB1": "BI", "IOB2": "BI", "IOE1": "IE", "IOE2": "IE", "BIOES": "BIES", "BILOU": "BILU"}


def tagged(prefixes: str) -> st.SearchStrategy[list[tuple[list[str], list[str]]]]:
    """Pairs of tags: any tags, and the same or any others of that length."""
    tag = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC"))])
    pair = st.lists(st.tuples(tag, tag, st.booleans()), min_size=1, max_size=12).map(
        lambda rows: ([one for one, _, _ in rows], [one if same else other for one, other, same in rows])
    )
    return st.lists(pair, min_size=1, max_size=5)


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


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_f1_and_matthews_correlation_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, predicted = map(list, zip(*pairs, strict=True))
    shares = f1_score(gold, predicted, labels=list("abcd"), average=None, zero_division=0.0)
    for name, share in zip("abcd", shares, strict=True):
        assert binary_f1(gold, predicted, name) == pytest.approx(100 * share, abs=1e-9)
    assert macro_f1(gold, predicted) == pytest.approx(100 * f1_score(gold, predicted, average="macro"), abs=1e-9)
    assert matthews(gold, predicted) == pytest.approx(100 * matthews_corrcoef(gold, predicted), abs=1e-9)


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
    assert entity_f1([["O"]], [["O"]]) == 0.0  # nothing to find is not a success


def test_an_entity_of_bioes_ends_at_e_and_may_be_one_s() -> None:
    gold = [["B-NAME", "E-NAME", "O", "S-LOC"]]
    assert entity_f1(gold, gold, "BIOES") == 100.0
    assert entity_f1(gold, [["B-NAME", "O", "O", "O"]], "BIOES") == 0.0
    assert entity_f1(gold, [["B-NAME", "E-NAME", "S-LOC", "O"]], "BIOES") == 50.0
    assert entity_f1(gold, [["B-NAME", "E-NAME", "O", "O"]], "BIOES") == pytest.approx(200 / 3)


@pytest.mark.parametrize("scheme", [*PREFIXES, "BMES"])
def test_f1_of_entities_equals_seqevals_strict_mode(scheme: Any) -> None:
    seqeval = pytest.importorskip("seqeval.metrics", reason="needs the extra dev")
    import seqeval.scheme as theirs

    seqevals = getattr(theirs, {"BIOES": "IOBES", "BMES": "IOBES"}.get(scheme, scheme))

    @settings(max_examples=300, deadline=None)
    @given(tagged(PREFIXES.get(scheme, "BMES")))
    def equal(pairs: list[tuple[list[str], list[str]]]) -> None:
        sides = [[tags for tags, _ in pairs], [tags for _, tags in pairs]]
        with_i = [[[tag.replace("M-", "I-") for tag in tags] for tags in side] for side in sides]
        expected = 100 * seqeval.f1_score(*with_i, mode="strict", scheme=seqevals, zero_division=0)
        assert entity_f1(*sides, scheme) == pytest.approx(expected)

    equal()


def test_tags_are_scored_by_the_scheme_of_the_data() -> None:
    tags = ("B-X", "E-X", "S-X")
    some = [Example("0", "a b c", label=tags, tokens=("a", "b", "c"))]
    of = {"head": "tagging", "metrics": ("entity_f1", "token_accuracy")}
    figures = compute_metrics(data(**of, scheme="BIOES"), some, [("B-X", "O", "S-X")])  # type: ignore[arg-type]
    assert figures == pytest.approx({"entity_f1": 200 / 3, "token_accuracy": 200 / 3})
    with pytest.raises(DataError, match="entity_f1 needs a tag scheme"):
        compute_metrics(data(**of), some, [tags])  # type: ignore[arg-type]


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


def test_every_metric_of_a_dataset_is_computed_in_order() -> None:
    examples = [Example(str(i), "q", "t", label, group="g") for i, label in enumerate("010")]
    pairs = data("classification", ("mrr", "f1"), positive="1")
    assert compute_metrics(pairs, examples, ["0", "1", "1"], [0.1, 0.8, 0.9]) == pytest.approx(
        {"mrr": 50.0, "f1": 200 / 3}
    )
    with pytest.raises(DataError, match="mrr needs a score per candidate"):
        compute_metrics(pairs, examples, ["0", "1", "1"])


def test_answers_are_scored_by_order_even_with_equal_ids() -> None:
    examples = [Example("same", "谁？", "李白", (Answer(text, 0),)) for text in ("李白", "李")]
    spans = data("span", ("exact_match", "answer_f1"), answer_rules="cmrc2018")
    assert compute_metrics(spans, examples, ["李白", "李白"]) == pytest.approx(
        {"exact_match": 50.0, "answer_f1": 500 / 6}
    )


def test_examples_without_labels_or_predictions_are_refused() -> None:
    with pytest.raises(DataError, match="2 predictions for 1 examples"):
        compute_metrics(data("classification", ("accuracy",)), [Example("0", "a", label="1")], ["1", "1"])
    with pytest.raises(DataError, match="these examples have no labels"):
        compute_metrics(data("classification", ("accuracy",)), [Example("0", "a")], ["1"])


def test_the_majority_baseline_gives_every_example_the_most_frequent_label() -> None:
    some = tuple(Example(str(i), "w1", label=label) for i, label in enumerate(["bad"] * 3 + ["good"]))
    assert majority_scores(tiny.data("classification", test=some), "test") == {"accuracy": 75.0}


def test_the_majority_baseline_of_tags_has_no_entity_f1() -> None:
    some = (
        Example("0", "w1 w2", label=("B-X", "O"), tokens=("w1", "w2")),
        Example("1", "w3", label=("O",), tokens=("w3",)),
    )
    assert majority_scores(tiny.data("tagging", test=some), "test") == {"token_accuracy": pytest.approx(200 / 3)}


@pytest.mark.parametrize("head", ["span", "regression"])
def test_spans_and_numbers_have_no_majority_baseline(head: Head) -> None:
    assert majority_scores(tiny.data(head), "dev") == {}
