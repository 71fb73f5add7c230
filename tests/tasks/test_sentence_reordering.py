"""Sentence reordering: the class is the permutation, and no text is lost."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ernie2.tasks.base import Source
from tiny import document, random_document, task

NUMBERED = document([[[i] for i in range(10, 16)]])  # one paragraph of six sentences, each its own number


def arrange(text, start=0, max_tokens=500, seed=0, m=4):
    return task("sentence_reordering", max_segments=m).arrange(
        Source(text, start), None, max_tokens, np.random.default_rng(seed)
    )


def shown(arranged):
    return [s.document.tokens[s.start : s.end].tolist() for s in arranged.segments]


def tokens_of(arranged):
    return sorted(token for segment in shown(arranged) for token in segment)


@pytest.mark.parametrize(("m", "classes"), [(2, 3), (3, 9), (4, 33), (5, 153), (6, 873)])
def test_there_are_as_many_classes_as_permutations_of_1_to_m_segments(m, classes):
    labels = task("sentence_reordering", max_segments=m).labels
    assert len(labels) == len(set(labels)) == sum(factorial(n) for n in range(1, m + 1)) == classes
    assert list(labels) == sorted(labels, key=lambda label: (len(label), label))
    assert all(sorted(label) == [str(i + 1) for i in range(len(label))] for label in labels)


def test_more_than_six_segments_or_fewer_than_two_are_no_option():
    for m in (1, 7):
        with pytest.raises(ValidationError):
            task("sentence_reordering", max_segments=m)


def test_the_label_312_shows_the_third_segment_first_then_the_first_then_the_second():
    labels = task("sentence_reordering").labels
    for seed in range(300):
        arranged = arrange(document([[[1_0], [2_0], [3_0]]]), seed=seed, m=3)
        if len(arranged.segments) == 3 and labels[arranged.label] == "312":
            assert shown(arranged) == [[30], [10], [20]]
            return
    pytest.fail("the label 312 never came")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(5, 60))
def test_putting_the_segments_back_by_the_label_gives_the_text_back(seed, m, max_tokens):
    text = random_document(np.random.default_rng(seed))
    arranged = arrange(text, max_tokens=max_tokens, seed=seed, m=m)
    if arranged is None:
        assert min(np.diff(text.sentences)) > max_tokens
        return
    label = task("sentence_reordering", max_segments=m).labels[arranged.label]
    assert len(label) == len(arranged.segments) <= m
    back = [segment for _, segment in sorted(zip(label, arranged.segments, strict=True), key=lambda pair: pair[0])]
    assert all(a.end == b.start for a, b in pairwise(back))
    assert {edge for s in back for edge in (s.start, s.end)} <= set(text.sentences.tolist())
    assert sum(map(len, back)) <= max_tokens
    assert text.sentences[arranged.next_sentence] == back[-1].end


def test_all_33_classes_come_each_n_equally_often_and_each_permutation_of_n_equally_often():
    rng, result = np.random.default_rng(0), task("sentence_reordering")
    labels = Counter(result.labels[result.arrange(Source(NUMBERED, 0), None, 99, rng).label] for _ in range(16_000))
    assert len(labels) == 33
    for n in range(1, 5):
        of_n = [count for label, count in labels.items() if len(label) == n]
        assert sum(of_n) / 16_000 == pytest.approx(0.25, abs=0.015)
        assert of_n == pytest.approx([4_000 / factorial(n)] * factorial(n), rel=0.3)


def test_cuts_fall_uniformly():
    rng, result = np.random.default_rng(0), task("sentence_reordering", max_segments=2)
    two = [a for _ in range(4_000) if len((a := result.arrange(Source(NUMBERED, 0), None, 99, rng)).segments) == 2]
    first_ends = Counter(min(s.end for s in a.segments) for a in two)
    assert sorted(first_ends) == [1, 2, 3, 4, 5]
    assert list(first_ends.values()) == pytest.approx([len(two) / 5] * 5, rel=0.15)


def test_a_paragraph_of_fewer_than_m_sentences_is_extended_by_the_following_ones():
    text = document([[[10], [11]], [[12]], [[13], [14]], [[15]]])
    assert tokens_of(arrange(text)) == [10, 11, 12, 13, 14]
    assert arrange(text).next_sentence == 5
    assert tokens_of(arrange(text, m=2)) == [10, 11]
    assert tokens_of(arrange(text, start=4)) == [14, 15]


def test_the_paragraph_is_cut_to_the_room_before_it_is_split():
    text = document([[[10] * 4, [11] * 4, [12] * 4, [13] * 4]])
    for seed in range(50):
        arranged = arrange(text, max_tokens=9, seed=seed)
        assert tokens_of(arranged) == [10] * 4 + [11] * 4
        assert arranged.next_sentence == 2


def test_a_sentence_longer_than_max_tokens_is_skipped_not_cut():
    text = document([[[10] * 9, [11], [12], [13] * 9, [14]]])
    assert tokens_of(arrange(text, max_tokens=5)) == [11, 12]
    assert shown(arrange(text, start=3, max_tokens=5)) == [[14]]
    assert arrange(document([[[10] * 9]]), max_tokens=5) is None


def test_one_sentence_leaves_one_class_and_is_usable_for_nothing():
    arranged = arrange(document([[[10, 11]]]))
    assert (arranged.label, len(arranged.segments)) == (0, 1)
    assert not task("sentence_reordering").can_use(document([[[10, 11]]]))
    assert task("sentence_reordering").can_use(document([[[10], [11]]]))
