"""Sentence distance: do two sentences stand side by side, apart in one document, or in two? (structure-aware)"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.random import Generator

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Array, Segment, SentenceTask, Source, TokenSequence, register
from ernie2.tasks.pairs import OVERLAP_NAME, overlap

ADJACENT, _, DIFFERENT_DOCUMENTS = range(3)  # between them: the same document, not adjacent
MAX_STEP = 3
"""The walk goes on by one to this many sentences, so that about half of them come first in a pair (ours)."""

CANDIDATES = 3
"""Other documents among which one is drawn by its length, so that the second sentence alone tells little (ours)."""


@register
class SentenceDistance(SentenceTask):
    """Label 0: the second sentence follows the first; 1: it comes later in the document; 2: it is of another origin.

    The three classes are the paper's. Made exact by us: in classes 0 and 1 the second sentence stands behind the first
    in the text, so that order gives nothing away; the first sentence is drawn alike for all classes, so that it gives
    nothing away alone, and the other document by its length, so that the second gives away little; sentences are shown
    whole or not at all.
    """

    name = "sentence_distance"
    title = "Sentence distance"
    about = "Are two sentences neighbours, apart in one document, or from different documents?"
    needs = "documents of at least three sentences, of more than one origin"
    baseline_name = OVERLAP_NAME
    legend = "adjacent: (2) follows (1); same_document: it comes later; different_documents: it stands in another text"
    labels = ("adjacent", "same_document", "different_documents")

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Whether the document has sentences that are not neighbours: one that cannot show all classes shows none."""
        return document.sentence_count > 2

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Pairs the next sentence that has room for a partner with one that stands to it as `label` says.

        The partner is drawn uniformly among those that fit; first sentences without one are passed over, and None is
        returned where none is left.
        """
        document, kind = source.document, self.labels.index(str(label))
        count = document.sentence_count
        partners = _draw_partner_document(source, rng) if kind == DIFFERENT_DOCUMENTS else document
        own, edges = document.sentences, partners.sentences
        step = int(rng.integers(1, MAX_STEP + 1))
        for first in range(source.start, count - 2):  # whatever the class, two sentences follow the first
            begin = (first + 1, first + 2, 0)[kind]
            end = first + 2 if kind == ADJACENT else partners.sentence_count
            left = max_tokens - int(own[first + 1] - own[first])
            fitting = (edges[begin + 1 : end + 1] - edges[begin:end] <= left).nonzero()[0]
            if len(fitting):
                second = begin + int(fitting[rng.integers(len(fitting))])
                on = first + step if first + step < count - 2 else count
                return Arrangement((_sentence(document, first), _sentence(partners, second)), kind, next_sentence=on)
        return None

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return np.full(len(positions), overlap(sequence), np.int64)


def _draw_partner_document(source: Source, rng: Generator) -> AnnotatedDocument:
    """One of a few documents of other origin, by their numbers of sentences: as often as the walk comes upon it."""
    drawn = [source.other_document for _ in range(CANDIDATES)]
    ends = list(accumulate(document.sentence_count for document in drawn))
    return drawn[bisect_right(ends, int(rng.integers(ends[-1])))]


def _sentence(document: AnnotatedDocument, number: int) -> Segment:
    return Segment(document, int(document.sentences[number]), int(document.sentences[number + 1]))
