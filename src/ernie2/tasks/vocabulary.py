"""The tokeniser as tasks see it: a handful of ids, and the strings of all."""

from __future__ import annotations

import numpy as np

from ernie2.shards.wordpieces import WordPieces
from ernie2.tasks.base import Vocabulary


def vocabulary_of(wordpieces: WordPieces) -> Vocabulary:
    """Return what tasks need of this tokeniser."""
    return Vocabulary(
        size=wordpieces.vocab_size,
        cls=wordpieces.cls_id,
        sep=wordpieces.sep_id,
        mask=wordpieces.mask_id,
        pad=wordpieces.pad_id,
        unk=wordpieces.unk_id,
        ordinary=np.asarray(wordpieces.ordinary_ids, np.int64),
        cased=wordpieces.cased,
        tokens=wordpieces.tokens,
    )


def bare_vocabulary() -> Vocabulary:
    """A vocabulary of the five special tokens: for building a task where there is no tokeniser yet."""
    names = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]")
    return Vocabulary(size=5, cls=0, sep=1, mask=2, pad=3, unk=4, ordinary=np.zeros(0, np.int64), tokens=names)
