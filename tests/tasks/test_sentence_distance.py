"""Sentence distance: the pair has the relation of the label, untruncated, and only the text reveals the class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Segment, Source
from ernie2.tasks.instances import arrange as checked
from ernie2.tasks.instances import build_instance, lay_out
from tiny import FOUR, VOCABULARY, document, random_document, task

LABELS = ("adjacent", "same_document", "different_documents")
HERE = document([[[10], [11]], [[12], [13], [14]]])  # each sentence is one id: its place, and 10
ELSEWHERE = document([[[50], [51]]], group=1)
CASES = [("adjacent", {1}), ("same_document", {2, 3, 4}), ("different_documents", {*range(36, 42)})]


def arrange(label, text=HERE, other=ELSEWHERE, start=0, max_tokens=99, seed=0):
    source = Source(text, start, lambda: other)
    return task("sentence_distance").arrange(source, label, max_tokens, np.random.default_rng(seed))


def shown(arranged):
    return [s.document.tokens[s.start : s.end].tolist() for s in arranged.segments]


def walk(label, text, seed=0, max_tokens=99):
    """All pairs of a document, walked as the stream walks it."""
    rng, at, pairs = np.random.default_rng(seed), 0, []
    while at < text.sentence_count:
        arrangement = task("sentence_distance").arrange(Source(text, at, lambda: ELSEWHERE), label, max_tokens, rng)
        if arrangement is None:
            break
        assert arrangement.next_sentence > at
        pairs.append(arrangement)
        at = arrangement.next_sentence
    return pairs


def relation(arranged: Arrangement) -> str | None:
    """What a reader would call the pair, by token offsets alone; None where no class fits, such as the wrong order."""
    first, second = arranged.segments
    if first.document is not second.document:
        return "different_documents"
    gap = second.start - first.end
    return "adjacent" if gap == 0 else "same_document" if gap > 0 else None


@pytest.mark.parametrize(("label", "gaps"), CASES)
def test_the_pair_has_the_relation_of_the_label(label, gaps):
    result = [pair for seed in range(100) for pair in walk(label, HERE, seed)]
    assert {second[0] - first[0] for first, second in map(shown, result)} <= gaps
    assert {made_of.label for made_of in result} == {LABELS.index(label)}
    assert {relation(pair) for pair in result} == {label}


def test_labels_are_0_adjacent_1_same_document_2_different_documents():
    assert task("sentence_distance").labels == LABELS
    assert task("sentence_distance").balanced
    assert task("sentence_distance").max_segments == 2


def test_every_partner_there_is_comes_equally_often():
    seconds = Counter(shown(arrange("same_document", seed=seed))[1][0] for seed in range(3_000))
    assert sorted(seconds) == [12, 13, 14]
    assert list(seconds.values()) == pytest.approx([1_000] * 3, rel=0.1)
    others = Counter(shown(arrange("different_documents", seed=seed))[1][0] for seed in range(2_000))
    assert others == pytest.approx({50: 1_000, 51: 1_000}, rel=0.1)


def test_the_other_document_is_one_of_three_by_its_number_of_sentences():
    short, long = document([[[60]]], group=1), document([[[70], [71], [72]]], group=2)
    chosen = Counter()
    for seed in range(3_000):
        others = iter([short, long, short])
        source = Source(HERE, 0, lambda: next(others))  # noqa: B023
        arrangement = task("sentence_distance").arrange(source, "different_documents", 99, np.random.default_rng(seed))
        chosen[shown(arrangement)[1][0]] += 1
    assert chosen == pytest.approx({60: 1_200, 70: 600, 71: 600, 72: 600}, rel=0.15)


def test_the_first_sentence_alone_tells_nothing_the_walk_is_the_same_for_every_label():
    firsts = [
        Counter(shown(pair)[0][0] for seed in range(1_500) for pair in walk(label, HERE, seed)) for label in LABELS
    ]
    assert firsts[0].keys() == firsts[1].keys() == firsts[2].keys() == {10, 11, 12}
    for other in firsts[1:]:
        assert other == pytest.approx(firsts[0], rel=0.1)


def test_the_walk_goes_on_by_one_to_three_sentences_and_ends_with_the_third_last():
    twenty = document([[[i] for i in range(100, 120)]])
    steps = Counter()
    for seed in range(50):
        firsts = [shown(pair)[0][0] for pair in walk("adjacent", twenty, seed)]
        assert firsts[0] == 100
        assert firsts[-1] <= 117
        steps.update(np.diff(firsts).tolist())
    assert sorted(steps) == [1, 2, 3]
    assert arrange("adjacent", start=2).next_sentence == 5  # nothing can come first any more: the next document


def test_a_sentence_that_does_not_fit_is_skipped_not_cut():
    text = document([[[10] * 6, [11] * 5, [12] * 3, [13] * 9, [14] * 4, [15]]])
    assert shown(arrange("adjacent", text, max_tokens=8)) == [[11] * 5, [12] * 3]
    assert {tuple(map(len, shown(arrange("same_document", text, max_tokens=8, seed=s)))) for s in range(50)} == {(6, 1)}
    assert {tuple(map(len, shown(arrange("same_document", text, max_tokens=10, seed=s)))) for s in range(50)} == {
        (6, 1),
        (6, 3),
        (6, 4),
    }
    assert arrange("adjacent", text, max_tokens=7, start=2) is None
    long_other = document([[[50] * 9, [51] * 2]], group=1)
    assert {
        tuple(shown(arrange("different_documents", text, long_other, max_tokens=8, seed=s))[1]) for s in range(20)
    } == {(51, 51)}


@pytest.mark.parametrize("label", LABELS)
def test_documents_of_one_or_two_sentences_show_no_class_so_that_length_tells_none(label):
    for text in (document([[[10]]]), document([[[10], [11]]])):
        assert arrange(label, text) is None
        assert not task("sentence_distance").can_use(text)
    assert task("sentence_distance").can_use(document([[[10], [11]], [[12]]]))


@pytest.mark.parametrize("label", LABELS[:2])
def test_only_the_third_class_asks_for_another_document(label):
    arrangement = task("sentence_distance").arrange(Source(HERE, 0), label, 99, np.random.default_rng(0))
    assert relation(arrangement) == label


def random_source(seed: int) -> tuple[AnnotatedDocument, AnnotatedDocument]:
    rng = np.random.default_rng(seed)
    return random_document(rng, sentences=int(rng.integers(1, 15))), random_document(rng, name="other", group=1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(6, 60), st.sampled_from(LABELS), st.integers(0, 14))
def test_two_complete_sentences_of_the_relation_fit_or_there_is_no_pair(seed, limit, label, start):
    text, other = random_source(seed)
    start = min(start, text.sentence_count - 1)
    rng = np.random.default_rng(seed)
    arrangement = checked(task("sentence_distance"), Source(text, start, lambda: other), label, limit, rng)
    lengths, others = np.diff(text.sentences), np.diff(other.sentences)
    max_tokens = limit - 3
    pairs = {
        "adjacent": [(i, i + 1, lengths) for i in range(start, len(lengths) - 2)],
        "same_document": [(i, j, lengths) for i in range(start, len(lengths) - 2) for j in range(i + 2, len(lengths))],
        "different_documents": [(i, j, others) for i in range(start, len(lengths) - 2) for j in range(len(others))],
    }[label]
    possible = [(i, j) for i, j, seconds in pairs if lengths[i] + seconds[j] <= max_tokens]
    if arrangement is None:
        assert not possible
        return
    assert (relation(arrangement), arrangement.label) == (label, LABELS.index(label))
    whole = [segment.document.sentences.tolist().index(segment.start) for segment in arrangement.segments]
    assert all(s.document.sentences[at + 1] == s.end for s, at in zip(arrangement.segments, whole, strict=True))
    assert tuple(whole) in possible
    assert whole[0] == min(i for i, _ in possible)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(LABELS))
def test_the_pair_follows_from_the_randomness_it_is_given(seed, label):
    text, other = random_source(seed)
    one, two = (arrange(label, text, other, max_tokens=30, seed=seed) for _ in range(2))
    assert one == two


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(LABELS))
def test_attached_token_tasks_score_no_special_token_of_the_pair(seed, label):
    text, other = random_source(seed)
    rng = np.random.default_rng(seed)
    distance = task("sentence_distance")
    arranged = checked(distance, Source(text, 0, lambda: other), label, 64, rng)
    if arranged is None:
        return
    instance = build_instance(arranged, distance, [task(name) for name in FOUR[:3]], VOCABULARY, rng)
    assert instance.labels["sentence_distance"].targets.tolist() == [LABELS.index(label)]
    assert set(instance.segment.tolist()) == {0, 1}
    for name in FOUR[:3]:
        assert (instance.sequence.document[instance.labels[name].positions] >= 0).all()


@pytest.mark.parametrize(
    ("first", "second", "feature"),
    [
        ([10, 11, 12], [20, 21], 0),
        ([10, 11, 12], [10, 21], 5),
        ([10, 10, 11, 12], [12, 10, 10, 13], 6),  # {10, 12} of three different pieces
        ([10, 11], [10, 11, 12, 13], 10),
    ],
)
def test_the_baseline_feature_is_the_share_of_common_tokens_in_tenths(first, second, feature):
    text = document([[first, second]])
    arranged = Arrangement((Segment(text, 0, len(first)), Segment(text, len(first), len(text))), 0)
    tested_task = task("sentence_distance").baseline_feature(lay_out(arranged, VOCABULARY), np.zeros(1, np.int64))
    assert tested_task.tolist() == [feature]


# ---- the rule bent: the check above notices


def adjacent_backwards(arranged):
    return Arrangement(arranged.segments[::-1], arranged.label)


def one_sentence_further(arranged):
    first, second = arranged.segments
    return Arrangement((first, Segment(HERE, second.start + 1, second.end + 1)), arranged.label)


@pytest.mark.parametrize("bend", [adjacent_backwards, one_sentence_further])
def test_a_bent_rule_is_noticed(bend):
    straight = arrange("adjacent")
    assert relation(straight) == LABELS[straight.label]
    assert relation(bend(straight)) != LABELS[straight.label]
