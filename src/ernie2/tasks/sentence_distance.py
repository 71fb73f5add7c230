"""Sentence distance: are two sentences adjacent, in one document, or in two documents? (structure-aware)"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
from numpy.random import Generator

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Array, Segment, SentenceTask, Source, TokenSequence, register
from ernie2.tasks.pairs import OVERLAP_NAME, overlap

ADJACENT, _, DIFFERENT_DOCUMENTS = range(3)  # 1: the same document, not adjacent
MAX_STEP = 3
"""The next pair starts one to this many sentences later, so that about half of all sentences start one (ours)."""

CANDIDATES = 3
"""Candidates for the other document; one is drawn by length, so that the second sentence reveals little (ours)."""


@register
class SentenceDistance(SentenceTask):
    """Label 0: the second sentence follows the first; 1: it comes later in the document; 2: it is of another group.

    The three classes are the paper's; these details are ours. In classes 0 and 1 the second sentence is later in the
    text, so that order reveals nothing. The first sentence is drawn in the same way for all classes, so that it reveals
    nothing on its own. The other document is drawn by length, so that the second reveals little. Sentences are never
    truncated.
    """

    name = "sentence_distance"
    title = "Sentence distance"
    about = "Are two sentences adjacent, further apart in one document, or from different documents?"
    needs = "documents of at least three sentences, of more than one group"
    baseline_name = OVERLAP_NAME
    legend = "adjacent: (2) follows (1); same_document: it comes later; different_documents: it is from another text"
    labels = ("adjacent", "same_document", "different_documents")

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Return whether the document has non-adjacent sentences; a document must be able to give all classes."""
        return document.sentence_count > 2

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Pair the next sentence that leaves room for a partner with a partner in the relation `label`.

        The partner is drawn uniformly among those that fit. First sentences without a partner are skipped; None if no
        sentence is left.
        """
        document, kind = source.document, self.labels.index(str(label))
        count = document.sentence_count
        partners = _draw_partner_document(source, rng) if kind == DIFFERENT_DOCUMENTS else document
        own, edges = document.sentences, partners.sentences
        step = int(rng.integers(1, MAX_STEP + 1))
        for first in range(source.start, count - 2):  # in all classes, two sentences follow the first
            begin = (first + 1, first + 2, 0)[kind]
            end = first + 2 if kind == ADJACENT else partners.sentence_count
            left = max_tokens - int(own[first + 1] - own[first])
            fitting = (edges[begin + 1 : end + 1] - edges[begin:end] <= left).nonzero()[0]
            if len(fitting):
                second = begin + int(fitting[rng.integers(len(fitting))])
                following = first + step if first + step < count - 2 else count
                segments = (_sentence(document, first), _sentence(partners, second))
                return Arrangement(segments, kind, next_sentence=following)
        return None

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return np.full(len(positions), overlap(sequence), np.int64)


def _draw_partner_document(source: Source, rng: Generator) -> AnnotatedDocument:
    """Draw one of a few documents of other groups, weighted by their numbers of sentences."""
    documents = [source.other_document for _ in range(CANDIDATES)]
    ends = list(accumulate(document.sentence_count for document in documents))
    return documents[bisect_right(ends, int(rng.integers(ends[-1])))]


def _sentence(document: AnnotatedDocument, number: int) -> Segment:
    return Segment(document, int(document.sentences[number]), int(document.sentences[number + 1]))
