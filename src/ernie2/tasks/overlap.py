"""Word overlap: how many pieces two texts have in common, the cheap rule of every task about a pair of texts."""

from __future__ import annotations

import numpy as np

from ernie2.tasks.base import TokenSequence

BUCKETS = 10
"""The rule sees the overlap in tenths."""
CHEAP_RULE = "share of pieces in common"


def overlap(sequence: TokenSequence) -> int:
    """Different pieces that stand in both of the first two segments, as a share of the segment with fewer; 0…10.

    Pieces {10, 11, 12} and {10, 12, 13, 14} have two of three in common: 6 tenths.
    """
    text = sequence.document >= 0
    first, second = (np.unique(sequence.tokens[text & (sequence.segment == i)]) for i in (0, 1))
    common = len(np.intersect1d(first, second, assume_unique=True))
    return BUCKETS * common // min(len(first), len(second))
