"""Pairs of texts: truncation to two segments, and the token overlap of two segments."""

from __future__ import annotations

import numpy as np

from ernie2.shards.store import WORD_START, AnnotatedDocument
from ernie2.shards.truncation import longest_first
from ernie2.tasks.base import Array, Segment, TokenSequence

Text = tuple[int, int]
"""Tokens [start, end) of the pair's document."""
BUCKETS = 10
"""The overlap is measured in tenths."""
OVERLAP_NAME = "share of tokens in common"


def pair_texts(document: AnnotatedDocument) -> tuple[Text, Text] | None:
    """Return the two texts of a labelled pair, its two paragraphs; None if it is not a pair or a text is empty."""
    if document.label is None or len(document.paragraphs) != 3:
        return None
    start, middle, end = document.sentences[document.paragraphs].tolist()
    return ((start, middle), (middle, end)) if start < middle < end else None


def truncate_pair(document: AnnotatedDocument, max_tokens: int) -> tuple[Segment, Segment] | None:
    """Return both texts of a pair, truncated at their ends to `max_tokens` together.

    The longer text is truncated first (as in the released fine-tuning code), back to a unit boundary: no word or span
    is split. None if this is not a pair, or if the first unit of a text does not fit.
    """
    if (texts := pair_texts(document)) is None:
        return None
    (first, middle), (_, end) = texts
    first_size, second_size = longest_first(middle - first, end - middle, max_tokens)
    stop = last_boundary(document, first, first + first_size, middle)
    second_stop = last_boundary(document, middle, middle + second_size, end)
    if stop == first or second_stop == middle:
        return None
    return Segment(document, first, stop), Segment(document, middle, second_stop)


def last_boundary(document: AnnotatedDocument, start: int, stop: int, end: int) -> int:
    """Return the last offset in [start, stop] at which the text [start, end) can be cut without splitting a unit."""
    while start < stop < end:
        inside = [int(runs[at, 0]) for runs in document.spans.values() if (at := _run_across(runs, stop)) is not None]
        if inside:
            stop = max(start, min(inside))
        elif document.flags[stop] & WORD_START:
            break
        else:
            stop -= 1
    return stop


def _run_across(runs: Array, stop: int) -> int | None:
    """Return the index of the sorted run (k, 2) that a cut before token `stop` would split, or None."""
    at = int(runs[:, 0].searchsorted(stop)) - 1
    return at if at >= 0 and runs[at, 1] > stop else None


def overlap(sequence: TokenSequence) -> int:
    """Return the distinct tokens shared by the first two segments, in tenths of the smaller set; 0…10.

    Tokens {10, 11, 12} and {10, 12, 13, 14} share two of three: 6 tenths.
    """
    text = sequence.document >= 0
    first, second = (np.unique(sequence.tokens[text & (sequence.segment == i)]) for i in (0, 1))
    common = len(np.intersect1d(first, second, assume_unique=True))
    return BUCKETS * common // min(len(first), len(second))
