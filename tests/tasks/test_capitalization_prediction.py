"""Capitalization prediction on small documents."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ernie2.tasks.base import Arrangement, Segment
from ernie2.tasks.capitalization_prediction import CapitalizationPrediction
from ernie2.tasks.instances import lay_out
from tiny import CONTINUING, UNK, VOCABULARY, document, random_document, task, whole


def labels_of(*segments):
    sequence = lay_out(Arrangement(segments, None), VOCABULARY)
    labels = task("capitalization_prediction").label(sequence, np.random.default_rng(0))
    assert labels.inputs is None
    return dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True))


def test_first_pieces_of_cased_words_say_whether_they_began_with_a_capital():
    # "In  Pe ##kin  wohnt  <unk>  12  Berta"; 12 has no case
    #   10  20  901  30      1     40  50
    text = document([[[10, 20, 901, 30, UNK, 40, 50]]], capitals={0, 1, 4, 6}, caseless={5})
    assert labels_of(whole(text)) == {1: 1, 2: 1, 4: 0, 7: 1}


def test_positions_follow_the_segments():
    text = document([[[10, 20], [30, 40]]], capitals={2})
    shown = labels_of(Segment(text, 2, 4), Segment(text, 0, 2))  # [CLS] 30 40 [SEP] 10 20 [SEP]
    assert shown == {1: 1, 2: 0, 4: 0, 5: 0}


def test_text_without_case_scores_nothing_and_is_not_usable():
    text = document([[[10, 20]]], caseless={0, 1})
    assert labels_of(whole(text)) == {}
    assert not task("capitalization_prediction").can_use(text)
    assert task("capitalization_prediction").can_use(document([[[10, 20]]], caseless={0}))


def test_a_cased_tokeniser_is_refused_with_the_reason():
    assert task("capitalization_prediction").unsupported_reason() is None
    cased = CapitalizationPrediction(CapitalizationPrediction.Options(), dataclasses.replace(VOCABULARY, cased=True))
    assert "cased" in (cased.unsupported_reason() or "")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_every_cased_word_is_scored_once_at_its_first_piece(seed):
    text = random_document(np.random.default_rng(seed))
    first_pieces = [at for at, token in enumerate(text.tokens.tolist()) if token < CONTINUING and token != UNK]
    assert sorted(labels_of(whole(text))) == [at + 1 for at in first_pieces]
