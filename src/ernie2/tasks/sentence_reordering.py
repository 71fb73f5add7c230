"""Sentence reordering: predict the permutation of the shuffled segments of a paragraph (structure-aware)."""

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
    """m: a paragraph is split into 1…m segments; k = Σ n! classes, 33 for m = 4, as in the authors' later head."""


@register
class SentenceReordering(SentenceTask):
    """Label "312": the sequence has segment 3 of the paragraph, then 1, then 2. Labels sort by length, then value."""

    name = "sentence_reordering"
    title = "Sentence reordering"
    about = "What was the original order of the shuffled segments of a paragraph?"
    needs = "documents of at least two sentences"
    baseline_name = "number of segments"
    legend = "label 312: the third segment of the text comes first here, then the first, then the second"
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
        """Truncate to `max_tokens`, split at sentence boundaries into n segments (n uniform), permute uniformly.

        Sentences longer than `max_tokens` are skipped.
        """
        document = source.document
        sentences, paragraphs = document.sentences, document.paragraphs
        first = source.start
        while sentences[first + 1] - sentences[first] > max_tokens:
            first += 1
            if first == document.sentence_count:
                return None
        # the paragraph of `first`, extended by the next ones until it has m sentences
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
        segments = tuple(Segment(document, edges[i], edges[i + 1]) for i in order)
        return Arrangement(segments, self._classes[order], next_sentence=end)

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        """Return the number n of segments: given n, a guess is right with probability 1/n!."""
        return np.full(len(positions), sequence.segment_count, np.int64)

    @cached_property
    def _orders(self) -> tuple[tuple[int, ...], ...]:
        return tuple(order for n in range(1, self.max_segments + 1) for order in permutations(range(n)))

    @cached_property
    def _classes(self) -> dict[tuple[int, ...], int]:
        return {order: number for number, order in enumerate(self._orders)}
