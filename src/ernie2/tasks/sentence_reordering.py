"""Sentence reordering: a paragraph is cut into segments and shuffled; which permutation was it? (structure-aware)"""

from __future__ import annotations

from functools import cached_property
from itertools import permutations

import numpy as np
from numpy.random import Generator
from pydantic import Field

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Array, Options, Segment, SentenceTask, Source, TokenSequence, register


class SentenceReorderingOptions(Options):
    """Options of sentence reordering."""

    max_segments: int = Field(default=4, ge=2, le=6)
    """m: a paragraph is cut into 1…m segments; k = Σ n! classes, 33 for m = 4, as wide as the authors' later head."""


@register
class SentenceReordering(SentenceTask):
    """Label "312": shown first is segment 3 of the paragraph, then 1, then 2; sorted by length, then value."""

    name = "sentence_reordering"
    title = "Sentence reordering"
    about = "In which order did the shuffled segments of a paragraph stand?"
    needs = "documents of at least two sentences"
    baseline_name = "number of segments alone"
    legend = "label 312: what is shown first stood third in the text, then comes the first, then the second"
    balanced = False
    Options = SentenceReorderingOptions

    @cached_property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """The k = Σ n! permutations, n = 1…m."""
        return tuple("".join(str(i + 1) for i in order) for order in self._orders)

    @property
    def max_segments(self) -> int:
        return int(self.options.max_segments)

    def can_use(self, document: AnnotatedDocument) -> bool:
        return document.sentence_count > 1

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Cuts to the room first, splits at sentence boundaries into n segments, n uniform, then permutes uniformly.

        A sentence longer than `max_tokens` is skipped.
        """
        document = source.document
        sentences, paragraphs = document.sentences, document.paragraphs
        first = source.start
        while sentences[first + 1] - sentences[first] > max_tokens:
            first += 1
            if first == document.sentence_count:
                return None
        # the paragraph that holds `first`, extended by the following ones while it has fewer than m sentences
        paragraph = int(paragraphs.searchsorted(first, side="right"))
        end = int(paragraphs[paragraph])
        while end - first < self.max_segments and paragraph + 1 < len(paragraphs):
            paragraph += 1
            end = int(paragraphs[paragraph])
        end = min(end, int(sentences.searchsorted(sentences[first] + max_tokens, side="right")) - 1)
        n = int(rng.integers(1, min(self.max_segments, end - first) + 1))
        cuts = np.sort(rng.permutation(end - first - 1)[: n - 1]) + first + 1
        edges = sentences[[first, *cuts, end]].tolist()  # n + 1 token offsets
        order = tuple(rng.permutation(n).tolist())
        shown = tuple(Segment(document, edges[i], edges[i + 1]) for i in order)
        return Arrangement(shown, self._classes[order], next_sentence=end)

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        """How many segments are shown: n alone leaves one chance in n!."""
        return np.full(len(positions), sequence.segment_count, np.int64)

    @cached_property
    def _orders(self) -> tuple[tuple[int, ...], ...]:
        return tuple(order for n in range(1, self.max_segments + 1) for order in permutations(range(n)))

    @cached_property
    def _classes(self) -> dict[tuple[int, ...], int]:
        return {order: number for number, order in enumerate(self._orders)}
