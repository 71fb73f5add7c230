"""The tokeniser as tasks see it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from ernie2.tasks.base import Arranged, Labels, Options, Segment, TokenTask
from ernie2.tasks.building import vocabulary_of
from ernie2.tasks.instances import lay_out
from tiny import VOCABULARY, document


def test_the_ids_of_the_tokeniser_are_taken_over():
    pieces = SimpleNamespace(
        vocab_size=9,
        cased=True,
        cls_id=2,
        sep_id=3,
        mask_id=4,
        pad_id=0,
        unk_id=1,
        ordinary_ids=[6, 7, 8],
        tokens=tuple("pucsm a1b"),
    )
    made = vocabulary_of(pieces)
    assert (made.size, made.cls, made.sep, made.mask, made.pad, made.unk, made.cased) == (9, 2, 3, 4, 0, 1, True)
    assert made.ordinary.dtype == np.int64
    assert made.ordinary.tolist() == [6, 7, 8]
    assert made.is_text.tolist() == [False] * 5 + [True] * 4
    assert made.tokens[7] == "1"


class ContainsDigit(TokenTask):
    """The task of docs/add-a-task.md."""

    name, labels = "contains_digit", ("no", "yes")

    def __init__(self, options, vocabulary):
        super().__init__(options, vocabulary)
        self.numeric = np.array([any(map(str.isdigit, token)) for token in vocabulary.tokens])

    def label(self, sequence, rng):
        positions = np.flatnonzero(self.vocabulary.is_text[sequence.tokens])
        return Labels(positions, self.numeric[sequence.tokens[positions]].astype(np.int64))


def test_a_task_sees_the_strings_of_its_tokens():
    strings = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "in", "1859", "##b2", "mp"]
    vocabulary = replace(VOCABULARY, tokens=(*strings, *[""] * (VOCABULARY.size - len(strings))))
    sequence = lay_out(Arranged((Segment(document([[[5, 6, 8, 7]]]), 0, 4),), None), vocabulary)
    made = ContainsDigit(Options(), vocabulary).label(sequence, np.random.default_rng(0))
    assert made.positions.tolist() == [1, 2, 3, 4]
    assert made.targets.tolist() == [0, 1, 0, 1]
