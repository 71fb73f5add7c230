"""Instances: arrangement, layout, labels, and errors for invalid results of tasks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.errors import TaskError
from ernie2.shards.store import WORD_START
from ernie2.tasks.base import Arrangement, Labels, Options, Segment, SentenceTask, Source, TokenTask
from ernie2.tasks.instances import arrange, arrange_unlabelled, build_instance, lay_out
from tiny import CLS, FOUR, MASK, SEP, UNK, VOCABULARY, document, random_document, task, whole

RNG = np.random.default_rng(0)


# ---- arranging


def test_an_unlabelled_arrangement_has_the_complete_sentences_that_fit():
    text = document([[[10, 11, 12], [13, 14]], [[15, 16, 17, 18]]])
    for max_tokens, end, following in [(3, 3, 1), (4, 3, 1), (5, 5, 2), (8, 5, 2), (9, 9, 3), (99, 9, 3)]:
        arranged = arrange_unlabelled(Source(text, 0), max_tokens)
        assert arranged == Arrangement((Segment(text, 0, end),), None, following)
    assert arrange_unlabelled(Source(text, 1), 4).segments == (Segment(text, 3, 5),)


def test_an_unlabelled_pair_has_two_segments_truncated_longest_first():
    pair = document([[[10, 11, 12], [13]], [[14, 15]]], label="but")
    assert arrange_unlabelled(Source(pair, 0), 7) == Arrangement((Segment(pair, 0, 4), Segment(pair, 4, 6)), None)
    assert arrange_unlabelled(Source(pair, 0), 6) == Arrangement((Segment(pair, 0, 3), Segment(pair, 4, 6)), None)
    arranged = arrange(None, Source(pair, 0), None, 8, RNG)
    assert lay_out(arranged, VOCABULARY).tokens.tolist() == [CLS, 10, 11, 12, SEP, 14, 15, SEP]


def test_a_first_sentence_beyond_the_room_is_cut_to_it():
    arranged = arrange_unlabelled(Source(document([[[10] * 9, [11]]]), 0), 4)
    assert (len(arranged.segments[0]), arranged.next_sentence) == (4, 1)


@pytest.mark.parametrize(
    ("max_tokens", "shown"),
    [
        (2, 2),  # a word and a piece of it
        (3, 2),  # not between the pieces of a word: 10-901 | 20-902-903 | …
        (4, 2),
        (5, 5),
        (6, 5),  # not inside the entity (5, 7)
        (7, 7),
        (8, 7),  # nor inside the spans (7, 9) and (8, 10), which overlap
        (9, 7),
        (10, 10),
    ],
)
def test_a_sentence_is_cut_only_between_units(max_tokens, shown):
    spans = {"entity": [(5, 7), (8, 10)], "word": [(7, 9)]}
    text = document([[[10, 901, 20, 902, 903, 30, 31, 40, 41, 42, 50, 51]]], spans=spans)
    arranged = arrange_unlabelled(Source(text, 0), max_tokens)
    assert (len(arranged.segments[0]), arranged.next_sentence) == (shown, 1)


def test_only_a_unit_longer_than_the_room_is_cut_at_it():
    for spans, tokens in (({"user": [(0, 6)]}, [*range(10, 17)]), ({}, [10, *range(900, 907)])):
        arranged = arrange_unlabelled(Source(document([[tokens]], spans=spans), 0), 4)
        assert len(arranged.segments[0]) == 4


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(3, 40))
def test_a_limit_below_the_longest_sentence_splits_no_unit_that_fits(seed, max_tokens):
    text = random_document(np.random.default_rng(seed), words=20)
    between = [
        at
        for at in range(1, len(text))
        if text.flags[at] & WORD_START
        and not any(start < at < end for runs in text.spans.values() for start, end in runs.tolist())
    ]
    for sentence, (start, end) in enumerate(pairwise(text.sentences.tolist())):
        if end - start > max_tokens:
            stop = max((at for at in between if start < at <= start + max_tokens), default=start + max_tokens)
            assert arrange_unlabelled(Source(text, sentence), max_tokens).segments == (Segment(text, start, stop),)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 80))
def test_the_plain_walk_shows_every_token_of_a_document_once(seed, max_tokens):
    text = random_document(np.random.default_rng(seed))  # sentences of at most 17 tokens
    shown, sentence = [], 0
    while sentence < text.sentence_count:
        arranged = arrange_unlabelled(Source(text, sentence), max_tokens)
        shown += list(range(arranged.segments[0].start, arranged.segments[0].end))
        assert len(arranged.segments[0]) <= max_tokens
        sentence = arranged.next_sentence
    assert shown == list(range(len(text)))


# ---- laying out


def test_segments_are_laid_out_with_their_columns_and_only_the_spans_they_hold():
    here = document([[[10, 20, 30], [40, 50]]], capitals={3}, spans={"entity": [(0, 2), (3, 5)], "phrase": [(1, 3)]})
    there = document([[[10, 901]]], spans={"entity": [(0, 2)]})
    segments = (Segment(here, 3, 5), Segment(there, 0, 2), Segment(here, 1, 3))
    sequence = lay_out(Arrangement(segments, None), VOCABULARY)
    assert sequence.tokens.tolist() == [CLS, 40, 50, SEP, 10, 901, SEP, 20, 30, SEP]
    assert sequence.segment.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert sequence.document.tolist() == [-1, 0, 0, -1, 1, 1, -1, 0, 0, -1]
    assert sequence.flags.tolist() == [0, 7, 5, 0, 5, 4, 0, 5, 5, 0]
    assert sequence.document_count.tolist() == [0, 1, 1, 0, 1, 1, 0, 1, 1, 0]
    assert {kind: runs.tolist() for kind, runs in sequence.spans.items()} == {
        "entity": [[1, 3], [4, 6]],
        "phrase": [[7, 9]],
    }
    assert sequence.segment_count == 3
    assert sequence.document_lengths.tolist() == [5, 2]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_spans_lie_on_the_tokens_they_lay_on_in_the_document(seed):
    rng = np.random.default_rng(seed)
    text = random_document(rng)
    start, end = sorted(rng.integers(len(text) + 1, size=2).tolist())
    sequence = lay_out(Arrangement((Segment(text, start, end),), None), VOCABULARY)
    for kind, runs in text.spans.items():
        inside = [text.tokens[a:b].tolist() for a, b in runs.tolist() if start <= a and b <= end]
        assert [sequence.tokens[a:b].tolist() for a, b in sequence.spans.get(kind, np.zeros((0, 2), int))] == inside


# ---- labelling


def built(text, *names, seed=0, sentence=None):
    tested_task = task(sentence) if sentence else None
    rng = np.random.default_rng(seed)
    arranged = arrange(tested_task, Source(text, 0), None, 64, rng)
    return build_instance(arranged, tested_task, [task(name) for name in names], VOCABULARY, rng)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_nobody_scores_special_tokens_unknown_words_or_what_another_task_replaced(seed, reorder):
    text = random_document(np.random.default_rng(seed))
    instance = built(text, *FOUR[:3], seed=seed, sentence=FOUR[3] if reorder else None)
    tokens, inputs = instance.sequence.tokens, instance.inputs
    for name in FOUR[:3]:
        positions = instance.labels[name].positions
        assert not np.isin(tokens[positions], [CLS, SEP, UNK]).any()
        assert (np.diff(positions) > 0).all()
        if name != "knowledge_masking":
            assert (inputs[positions] == tokens[positions]).all()
    replaced = np.flatnonzero(inputs != tokens)
    assert set(replaced) <= set(instance.labels["knowledge_masking"].positions)
    assert not np.isin(tokens[replaced], [CLS, SEP, UNK]).any()
    if reorder:
        assert instance.labels[FOUR[3]].positions.tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_the_labels_of_the_tokens_left_are_those_of_the_task_alone(seed):
    text = random_document(np.random.default_rng(seed))
    together = built(text, *FOUR[:3], seed=seed)
    for name in FOUR[1:3]:
        alone = built(text, name).labels[name]
        expected = dict(zip(alone.positions.tolist(), alone.targets.tolist(), strict=True))
        got = together.labels[name]
        assert expected | dict(zip(got.positions.tolist(), got.targets.tolist(), strict=True)) == expected
        left = {p for p in expected if together.inputs[p] == together.sequence.tokens[p]}
        assert set(got.positions.tolist()) == left


def test_the_order_in_which_tasks_are_named_changes_nothing():
    text = random_document(np.random.default_rng(0))
    one, other = built(text, *FOUR[:3]), built(text, *reversed(FOUR[:3]))
    assert (one.inputs == other.inputs).all()
    for name in FOUR[:3]:
        assert (one.labels[name].positions == other.labels[name].positions).all()


# ---- tasks that break their word

TEXT = document([[[10, 11], [12, 13]], [[14]]], name="the document")


class Sentence(SentenceTask):
    """Returns the given arrangement."""

    name, labels, needs = "broken_sentence", ("no", "yes"), "luck"

    def __init__(self, result):
        super().__init__(Options(), VOCABULARY)
        self.returned = result

    def arrange(self, source, label, max_tokens, rng):
        if isinstance(self.returned, Exception):
            raise self.returned
        return self.returned


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (ValueError("oops"), "oops"),
        (Arrangement((), 0), "empty arrangement"),
        (Arrangement((Segment(TEXT, 2, 2),), 0), "empty arrangement"),
        (Arrangement((Segment(TEXT, 3, 2),), 0), "empty arrangement"),
        (Arrangement((Segment(TEXT, 0, 1),) * 3, 0), "3 segments"),
        (Arrangement((Segment(TEXT, 3, 6),), 0), "outside"),
        (Arrangement((Segment(TEXT, -1, 2),), 0), "outside"),
        (Arrangement((Segment(TEXT, 0, 5), Segment(TEXT, 0, 5)), 0), "10 tokens, but at most 9 fit"),
        (Arrangement((whole(TEXT),), 2), "label 2"),
        (Arrangement((whole(TEXT),), -1), "label -1"),
        (Arrangement((whole(TEXT),), None), "label None"),
        (Arrangement((whole(TEXT),), 0.5), "label 0.5"),
        (Arrangement((whole(TEXT),), "yes"), "label 'yes'"),
        (Arrangement(((0, 3),), 0), "segments must be a tuple of Segment"),
        (Arrangement(None, 0), "segments must be a tuple of Segment"),
        ("the text", "returned a str, neither Arrangement nor None"),
        (Arrangement((whole(TEXT),), 0, next_sentence=1), "next_sentence must be greater than 1"),
    ],
)
def test_an_invalid_arrangement_is_refused_with_task_and_document(result, words):
    with pytest.raises(TaskError, match=f"'broken_sentence'.*'the document'.*{words}"):
        arrange(Sentence(result), Source(TEXT, 1), "yes", 12, RNG)


def test_none_is_no_broken_word():
    assert arrange(Sentence(None), Source(TEXT, 0), "yes", 12, RNG) is None


class Token(TokenTask):
    """Returns the given labels."""

    name, labels = "broken_token", ("no", "yes")

    def __init__(self, result, name="broken_token", changes_input=False):
        super().__init__(Options(), VOCABULARY)
        self.returned, self.name, self.changes_input = result, name, changes_input

    def label(self, sequence, rng):
        if isinstance(self.returned, Exception):
            raise self.returned
        return self.returned


def labels(positions, targets, inputs=None):
    return Labels(np.array(positions), np.array(targets), inputs)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (KeyError("oops"), "oops"),
        (labels([1, 2], [0]), "2 positions but 1 targets"),
        (labels([-1], [0]), "positions -1"),
        (labels([1, 7], [0, 1]), "positions 1…7 of a sequence of 7"),
        (labels([1], [2]), "labels 2…2, but it has 2 classes"),
        (labels([1], [-1]), "labels -1"),
        (labels([2, 1], [0, 0]), "do not ascend"),
        (labels([1, 1], [0, 0]), "do not ascend"),
        (labels([0], [0]), "a special token"),
        (labels([1], [0], np.full(7, MASK)), "changes_input is False"),
        (None, "returned None, not Labels"),
        (([1], [0]), "returned a tuple, not Labels"),
        (Labels([1], np.array([0])), "positions are a list"),
        (labels([1], [0.5]), "targets are an array of float64"),
        (labels([True], [0]), "positions are an array of bool"),
        (labels([[1]], [0]), "positions are an array of int64 with shape \\(1, 1\\)"),
    ],
)
def test_invalid_labels_are_refused_with_task_and_document(result, words):
    with pytest.raises(TaskError, match=f"'broken_token'.*'the document'.*{words}"):
        build_instance(Arrangement((whole(TEXT),), None), None, [Token(result)], VOCABULARY, RNG)


def test_two_tasks_that_change_the_input_cannot_share_an_instance():
    both = [Token(labels([1], [0]), name, changes_input=True) for name in ("one", "two")]
    with pytest.raises(TaskError, match="'one' and 'two' all change the input"):
        build_instance(Arrangement((whole(TEXT),), None), None, both, VOCABULARY, RNG)


def test_inputs_of_another_length_are_refused():
    tested_task = Token(labels([1], [0], np.full(3, MASK)), changes_input=True)
    with pytest.raises(TaskError, match="returned 3 inputs for a sequence of 7 tokens"):
        build_instance(Arrangement((whole(TEXT),), None), None, [tested_task], VOCABULARY, RNG)
