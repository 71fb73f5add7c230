"""The tokeniser as tasks see it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ernie2.tasks.vocabulary import vocabulary_of


def test_the_ids_of_the_tokeniser_are_taken_over():
    pieces = SimpleNamespace(
        vocab_size=9, cased=True, cls_id=2, sep_id=3, mask_id=4, pad_id=0, unk_id=1, ordinary_ids=[6, 7, 8]
    )
    made = vocabulary_of(pieces)
    assert (made.size, made.cls, made.sep, made.mask, made.pad, made.unk, made.cased) == (9, 2, 3, 4, 0, 1, True)
    assert made.ordinary.dtype == np.int64
    assert made.ordinary.tolist() == [6, 7, 8]
    assert made.text.tolist() == [False] * 5 + [True] * 4
