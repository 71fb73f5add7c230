"""Sentence order: are two neighbouring passages in order or swapped?"""

from __future__ import annotations

from numpy.random import Generator
from pydantic import Field

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Options, Segment, SentenceTask, Source, register


class SentenceOrderOptions(Options):
    passage_sentences: int = Field(default=1, ge=1)


@register
class SentenceOrder(SentenceTask):
    """Show two neighbouring passages in order or swapped; the caller draws both classes equally often."""

    name = "sentence_order"
    title = "Sentence order"
    about = "Are two neighbouring passages in order or swapped?"
    needs = "documents of at least two passages"
    labels = ("in_order", "swapped")
    Options = SentenceOrderOptions

    def can_use(self, document: AnnotatedDocument) -> bool:
        return document.sentence_count >= 2 * self.options.passage_sentences

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        edges, size = source.document.sentences, self.options.passage_sentences
        for first in range(source.start, len(edges) - 2 * size):
            start, middle, end = (int(edges[first + i * size]) for i in range(3))
            if end - start <= max_tokens:  # skip passages that do not fit; never cut them
                pair = Segment(source.document, start, middle), Segment(source.document, middle, end)
                shown = pair if label == "in_order" else pair[::-1]
                return Arrangement(shown, self.labels.index(str(label)), next_sentence=first + 2 * size)
        return None
