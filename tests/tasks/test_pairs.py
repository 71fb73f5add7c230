"""Truncation of two texts in one sequence."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ernie2.shards.store import WORD_START
from ernie2.shards.truncation import longest_first
from ernie2.tasks.base import Segment
from ernie2.tasks.pairs import last_boundary, pair_texts, truncate_pair
from tiny import document

#              0   1    2   3   4   5      6   7   8    9
PAIR = document([[[10, 900, 11, 12], [13, 14]], [[15, 16, 901, 17]]], spans={"entity": [(2, 4)]}, label="but")


def runs(result):
    return [(segment.start, segment.end) for segment in result]


def test_the_texts_of_a_pair_are_its_two_paragraphs():
    assert pair_texts(PAIR) == ((0, 6), (6, 10))


@pytest.mark.parametrize(
    "text",
    [
        document([[[10]], [[11]]]),
        document([[[10], [11]]], label="but"),
        document([[[10]], [[11]], [[12]]], label="but"),
        document([[[10]], []], label="but"),
        document([[], [[10]]], label="but"),
    ],
    ids=["no label", "one paragraph", "three paragraphs", "second empty", "first empty"],
)
def test_what_is_no_pair_of_two_texts_is_none(text):
    assert pair_texts(text) is None
    assert truncate_pair(text, 99) is None


@pytest.mark.parametrize(
    ("max_tokens", "shown"),
    [
        (10, [(0, 6), (6, 10)]),  # fits
        (9, [(0, 5), (6, 10)]),  # the longer one gives
        (8, [(0, 4), (6, 10)]),
        (7, [(0, 4), (6, 9)]),  # 4 and 3: of two equally long ones the second gives
        (6, [(0, 2), (6, 9)]),  # 3 and 3: the first would end inside the entity 11 12
        (4, [(0, 2), (6, 7)]),  # 2 and 2: the second would end inside the word 16 901
        (2, None),  # not even the word 10 900
    ],
)
def test_a_long_pair_is_cut_where_a_unit_ends(max_tokens, shown):
    segments = truncate_pair(PAIR, max_tokens)
    assert segments is None if shown is None else runs(segments) == shown


def test_a_text_that_needs_no_cut_keeps_its_end_whatever_follows_it():
    odd = document([[[10, 11]], [[900, 12]]], label="x")  # a second text that begins with a continuation piece
    assert runs(truncate_pair(odd, 99)) == [(0, 2), (2, 4)]


@st.composite
def pairs(draw):
    """Pairs of two texts of a few sentences, with continuation pieces and overlapping spans of two kinds."""
    texts = []
    for _ in range(2):
        words = st.lists(st.integers(5, 20), min_size=1, max_size=4)
        tails = draw(st.lists(st.integers(0, 3), min_size=1, max_size=8))
        texts.append([[*draw(words), *[900] * tail] for tail in tails])
    lengths = [len(sentence) for text in texts for sentence in text]
    spans = {"phrase": [], "entity": []}
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        for kind in spans:
            if length > 1 and draw(st.booleans()):
                at = draw(st.integers(end - length, end - 2))
                spans[kind].append((at, draw(st.integers(at + 2, end))))
    return document(texts, spans=spans, label="but")


@given(pairs(), st.integers(2, 60))
def test_nothing_passes_the_room_no_unit_is_cut_and_no_text_is_empty(pair, max_tokens):
    segments = truncate_pair(pair, max_tokens)
    (first, middle), (_, end) = pair_texts(pair)
    if segments is None:
        one, other = longest_first(middle - first, end - middle, max_tokens)
        assert any(
            cut < stop - start and not any(whole(pair, at) for at in range(start + 1, start + cut + 1))
            for start, cut, stop in ((first, one, middle), (middle, other, end))
        ), "given up although a unit of each text fits"
        return
    assert sum(map(len, segments)) <= max_tokens
    assert all(len(segment) > 0 for segment in segments)
    assert [segment.start for segment in segments] == [first, middle]
    for segment, stop in zip(segments, (middle, end), strict=True):
        assert segment.end == stop or whole(pair, segment.end)
    if middle - first + end - middle <= max_tokens:
        assert [segment.end for segment in segments] == [middle, end]


@given(pairs(), st.data())
def test_the_cut_goes_back_to_the_nearest_boundary_and_no_further(pair, data):
    (_, middle), (_, end) = pair_texts(pair)
    stop = data.draw(st.integers(middle, end))
    boundary = last_boundary(pair, middle, stop, end)
    allowed = [middle, *(at for at in range(middle + 1, end) if whole(pair, at)), end]
    assert boundary == max(at for at in allowed if at <= stop)


def whole(pair, at):
    """Whether a cut before token `at` goes neither through a word nor through a span; by looking at every span."""
    inside = any(start < at < end for runs in pair.spans.values() for start, end in np.asarray(runs).tolist())
    return bool(pair.flags[at] & WORD_START) and not inside


def test_segments_are_of_the_pair_itself():
    assert truncate_pair(PAIR, 10) == (Segment(PAIR, 0, 6), Segment(PAIR, 6, 10))
