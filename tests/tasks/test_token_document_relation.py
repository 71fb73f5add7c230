"""Token-document relation against a recount of the rest of the document."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.tasks.base import Arrangement, Segment
from ernie2.tasks.instances import lay_out
from tiny import UNK, VOCABULARY, document, random_document, task, whole


def labels_of(*segments):
    sequence = lay_out(Arrangement(segments, None), VOCABULARY)
    labels = task("token_document_relation").label(sequence, np.random.default_rng(0))
    return dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True))


def test_a_token_is_elsewhere_iff_the_rest_of_the_document_has_it():
    text = document([[[10, 20, 20], [30, 10]], [[40, UNK, 50]]])
    # shown: 10 20 20; left over: 30 10 40 [UNK] 50
    assert labels_of(Segment(text, 0, 3)) == {1: 1, 2: 0, 3: 0}
    # shown: 30 10 | 10 20 20; now 10 is not in what is left over
    assert labels_of(Segment(text, 3, 5), Segment(text, 0, 3)) == {1: 0, 2: 0, 4: 0, 5: 0, 6: 0}


def test_unknown_words_are_not_scored_though_they_occur_elsewhere():
    text = document([[[UNK, 10]], [[UNK, 10]]])
    assert labels_of(Segment(text, 0, 2)) == {2: 1}


def test_each_token_is_labelled_by_its_own_document():
    # 10 stands in the rest of `here`, not in the rest of `there`
    here, there = document([[[10], [10]]], name="here"), document([[[10], [20]]], name="there")
    assert labels_of(Segment(here, 0, 1), Segment(there, 0, 1)) == {1: 1, 3: 0}


def test_a_complete_document_is_not_scored_but_its_neighbour_is():
    whole_one, part = document([[[10, 20]]]), document([[[10], [10]]])
    assert labels_of(whole(whole_one), Segment(part, 0, 1)) == {4: 1}
    assert labels_of(whole(whole_one)) == {}


def test_documents_of_one_sentence_are_not_usable():
    assert not task("token_document_relation").can_use(document([[[10, 20]]]))
    assert task("token_document_relation").can_use(document([[[10], [20]]]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_labels_equal_a_recount_of_the_rest_of_the_document(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    segments = []
    for _ in range(data.draw(st.integers(1, 2))):  # documents
        text = random_document(rng)
        cuts = sorted(data.draw(st.sets(st.integers(0, text.sentence_count), min_size=2, max_size=5)))
        runs = list(pairwise(cuts))[:: data.draw(st.integers(1, 2))]
        segments += [Segment(text, int(text.sentences[a]), int(text.sentences[b])) for a, b in runs]
    order = data.draw(st.permutations(range(len(segments))))
    segments = [segments[i] for i in order]

    expected, at = {}, 1
    for segment in segments:
        own = [s for s in segments if s.document is segment.document]
        hidden = set(range(len(segment.document))) - {i for s in own for i in range(s.start, s.end)}
        elsewhere = {int(segment.document.tokens[i]) for i in hidden}
        for token in segment.document.tokens[segment.start : segment.end].tolist():
            if hidden and token != UNK:
                expected[at] = int(token in elsewhere)
            at += 1
        at += 1  # [SEP]
    assert labels_of(*segments) == expected
