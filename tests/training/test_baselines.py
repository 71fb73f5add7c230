from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from ernie2.training.baselines import SMOOTHING, FeatureBaseline, baseline_figures, macro_f1

CLASSES = 6
pairs = st.lists(st.tuples(st.sampled_from([-3, 0, 7, 8, 40]), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


def test_the_feature_baseline_answers_the_commonest_label_of_a_feature_and_the_majority_for_new_ones():
    rule = FeatureBaseline.fit(np.array([7, 7, 7, 8]), np.array([1, 1, 0, 0]), classes=2)
    assert rule.predict(np.array([7, 8, 9])).tolist() == [1, 0, rule.majority]


def test_the_loss_of_the_feature_baseline_is_that_of_smoothed_frequencies():
    rule = FeatureBaseline.fit(np.array([7, 7, 7]), np.array([1, 1, 0]), classes=2)
    expected = [-math.log((2 + SMOOTHING) / (3 + 2 * SMOOTHING)), -math.log((1 + SMOOTHING) / (3 + 2 * SMOOTHING))]
    assert rule.losses(np.array([7, 7]), np.array([1, 0])) == pytest.approx(expected)


def test_the_entropy_of_one_feature_is_the_unigram_entropy():
    rule = FeatureBaseline.fit(np.zeros(4, int), np.array([5, 5, 6, 7]), classes=10)
    assert rule.entropy == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4))


def test_the_majority_is_that_of_training_and_the_constant_that_of_the_held_out_labels():
    trained = FeatureBaseline.fit(np.array([7, 7, 8]), np.array([0, 0, 1]), classes=2)
    held = np.array([1] * 5 + [0] * 3)
    figures = baseline_figures(trained, np.array([8] * 8), held, "a word", with_f1=True)
    assert figures["majority"]["accuracy"] == 3 / 8
    assert figures["constant"]["accuracy"] == 5 / 8
    assert figures["cheap"]["accuracy"] == 5 / 8
    assert figures["constant"]["macro_f1"] == pytest.approx(5 / 13)  # F1 of class 1 is 10/13, of class 0 it is 0
    assert figures["cheap"]["rule"] == "a word"


def test_a_vocabulary_has_no_macro_f1():
    trained = FeatureBaseline.fit(np.array([0]), np.array([3]), classes=10)
    figures = baseline_figures(trained, np.array([0]), np.array([3]), "unigram", with_f1=False)
    assert [figures[key]["macro_f1"] for key in ("majority", "constant", "cheap")] == [None] * 3


@given(pairs, pairs)
def test_the_feature_baseline_answers_and_weighs_as_a_plain_count_of_labels_does(train, held):
    """Of labels that are equally common, it answers the one seen first."""
    rule = FeatureBaseline.fit(*np.array(train).T, classes=CLASSES)
    every = Counter(label for _, label in train)
    counted = {f: Counter(label for feature, label in train if feature == f) for f, _ in held}
    counted = {f: counts or every for f, counts in counted.items()}
    features, labels = np.array(held).T
    assert rule.predict(features).tolist() == [counted[f].most_common(1)[0][0] for f, _ in held]
    assert rule.majority == every.most_common(1)[0][0]
    odds = [(counted[f][y] + SMOOTHING) / (counted[f].total() + SMOOTHING * CLASSES) for f, y in held]
    assert rule.losses(features, labels) == pytest.approx(-np.log(odds))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60))
def test_macro_f1_is_that_of_scikit_learn(pairs):
    labels, predicted = np.array(pairs).T
    assert macro_f1(labels, predicted) == pytest.approx(f1_score(labels, predicted, average="macro"), abs=1e-12)
