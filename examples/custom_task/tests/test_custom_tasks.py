"""Both tasks on a text so small that the correct labels are obvious."""

from __future__ import annotations

import numpy as np
import pytest

from custom_task.seen_before import SeenBefore
from custom_task.sentence_order import SentenceOrder
from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Segment, Source, Vocabulary
from ernie2.tasks.instances import arrange, build_instance, lay_out

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = Vocabulary(size=100, cls=CLS, sep=SEP, mask=MASK, pad=PAD, unk=UNK, ordinary=np.arange(5, 100))


def document(*sentences: list[int]) -> AnnotatedDocument:
    """Return a document with one paragraph of the given sentences; every id is a word."""
    tokens = np.array([token for sentence in sentences for token in sentence])
    return AnnotatedDocument(
        name="text",
        group=0,
        tokens=tokens,
        flags=np.ones(len(tokens), np.uint8),
        document_count=np.array([np.sum(tokens == token) for token in tokens]),
        sentences=np.cumsum([0, *map(len, sentences)]),
        paragraphs=np.array([0, len(sentences)]),
        spans={},
    )


TEXT = document([10, 11], [12], [13, 14, 15], [16])


def order(
    label: str, text: AnnotatedDocument = TEXT, start: int = 0, limit: int = 50, size: int = 1
) -> Arrangement | None:
    task = SentenceOrder(SentenceOrder.Options(passage_sentences=size), VOCABULARY)
    return arrange(task, Source(text, start), label, limit, np.random.default_rng(0))  # also checks the return value


def token_ids(arrangement: Arrangement | None) -> list[list[int]]:
    assert arrangement is not None
    return [s.document.tokens[s.start : s.end].tolist() for s in arrangement.segments]


def test_a_token_was_seen_before_iff_it_occurs_earlier():
    text = document([10, 11, 10, UNK], [11, UNK, 12])
    task = SeenBefore(SeenBefore.Options(), VOCABULARY)
    sequence = lay_out(Arrangement((Segment(text, 0, 4), Segment(text, 4, 7)), None), VOCABULARY)
    #                                   [CLS] 10 11 10 [UNK] [SEP] 11 [UNK] 12 [SEP]
    labels = task.label(sequence, np.random.default_rng(0))
    assert dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True)) == {1: 0, 2: 0, 3: 1, 6: 1, 8: 0}
    assert task.baseline_feature(sequence, labels.positions).tolist() == [10, 11, 10, 11, 12]


@pytest.mark.parametrize(
    ("label", "size", "expected"),
    [
        ("in_order", 1, [[10, 11], [12]]),
        ("swapped", 1, [[12], [10, 11]]),
        ("in_order", 2, [[10, 11, 12], [13, 14, 15, 16]]),
        ("swapped", 2, [[13, 14, 15, 16], [10, 11, 12]]),
    ],
)
def test_passages_are_ordered_as_the_label_says(label: str, size: int, expected: list[list[int]]):
    arrangement = order(label, size=size)
    assert token_ids(arrangement) == expected
    assert arrangement.label == ("in_order", "swapped").index(label)
    assert arrangement.next_sentence == 2 * size


def test_passages_that_do_not_fit_are_skipped():
    text = document([10] * 6, [11] * 6, [12], [13])
    assert token_ids(order("in_order", text, limit=10)) == [[11] * 6, [12]]
    assert order("in_order", text, limit=4) is None
    assert order("in_order", start=3) is None


def test_one_sentence_is_not_enough():
    task = SentenceOrder(SentenceOrder.Options(), VOCABULARY)
    assert not task.can_use(document([10]))
    assert task.can_use(document([10], [11]))


def test_both_tasks_label_one_instance():
    tasks = SentenceOrder(SentenceOrder.Options(), VOCABULARY), SeenBefore(SeenBefore.Options(), VOCABULARY)
    instance = build_instance(
        order("swapped", document([10, 11], [11])), tasks[0], [tasks[1]], VOCABULARY, np.random.default_rng(0)
    )
    assert instance.inputs.tolist() == [CLS, 11, SEP, 10, 11, SEP]
    assert instance.labels["sentence_order"].targets.tolist() == [1]
    assert instance.labels["seen_before"].positions.tolist() == [1, 3, 4]
    assert instance.labels["seen_before"].targets.tolist() == [0, 0, 1]
