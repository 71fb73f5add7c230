"""Pairs of texts: truncation to two segments, and the token overlap of two segments."""

from __future__ import annotations

import numpy as np

from ernie2.shards.store import WORD_START, AnnotatedDocument
from ernie2.shards.truncation import longest_first
from ernie2.tasks.base import Array, Segment, TokenSequence

Text = tuple[int, int]
"""A token run [start, end) of the pair's document."""
BUCKETS = 10
"""The rule sees the overlap in tenths."""
OVERLAP_NAME = "share of pieces in common"


def pair_texts(document: AnnotatedDocument) -> tuple[Text, Text] | None:
    """The two texts of a labelled pair, its two paragraphs; None where this is not a pair or a text is empty."""
    if document.label is None or len(document.paragraphs) != 3:
        return None
    start, middle, end = document.sentences[document.paragraphs].tolist()
    return ((start, middle), (middle, end)) if start < middle < end else None


def truncate_pair(document: AnnotatedDocument, max_tokens: int) -> tuple[Segment, Segment] | None:
    """Both texts of a pair in at most `max_tokens` tokens, the ends cut off where they have more.

    The longer text is cut first (released fine-tuning code), and then back to the end of a whole unit: a cut goes
    neither through a word nor through a span. None where this is not a pair, or not even the first unit of a text fits.
    """
    if (texts := pair_texts(document)) is None:
        return None
    (first, middle), (_, end) = texts
    one, other = longest_first(middle - first, end - middle, max_tokens)
    stop = last_boundary(document, first, first + one, middle)
    second_stop = last_boundary(document, middle, middle + other, end)
    if stop == first or second_stop == middle:
        return None
    return Segment(document, first, stop), Segment(document, middle, second_stop)


def last_boundary(document: AnnotatedDocument, start: int, stop: int, end: int) -> int:
    """The last offset in [start, stop] at which the text [start, end) may be cut: neither a word nor a span goes on."""
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
    """Which of the sorted runs (k, 2) a cut before token `stop` would go through, or None."""
    at = int(runs[:, 0].searchsorted(stop)) - 1
    return at if at >= 0 and runs[at, 1] > stop else None


def overlap(sequence: TokenSequence) -> int:
    """Different pieces that stand in both of the first two segments, as a share of the segment with fewer; 0…10.

    Pieces {10, 11, 12} and {10, 12, 13, 14} have two of three in common: 6 tenths.
    """
    text = sequence.document >= 0
    first, second = (np.unique(sequence.tokens[text & (sequence.segment == i)]) for i in (0, 1))
    common = len(np.intersect1d(first, second, assume_unique=True))
    return BUCKETS * common // min(len(first), len(second))
