"""Labelled pairs: predict the label of a pair of texts; two tasks of the paper, and yours (semantic-aware).

The pairs and labels are those of a pair corpus; a subclass only sets its name, title and description:

    @register
    class Paraphrase(LabelledPairs):
        name, title, about = "paraphrase", "Paraphrase", "Do the two sentences say the same?"
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from numpy.random import Generator
from pydantic import Field, field_validator

from ernie2.corpora.cells import parse_label
from ernie2.errors import TaskError
from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Arrangement, Array, Options, SentenceTask, Source, TokenSequence, register
from ernie2.tasks.pairs import OVERLAP_NAME, overlap, pair_texts, truncate_pair


class LabelledPairsOptions(Options):
    """Options of every task on labelled pairs."""

    RENAMED: ClassVar = {"hosts_riders": "allows_attached_tasks"}

    labels: tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...] | None = Field(default=None, min_length=2)
    """Names of the classes in order; null: the labels of its corpora. They are fixed when a run starts."""
    allows_attached_tasks: bool = False
    """Whether token tasks may label these pairs too; each must name the pair corpus in its option `corpora`."""

    @field_validator("labels")
    @classmethod
    def _each_once(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is None:
            return None
        names = tuple(parse_label(label, "labels", "the recipe") or "" for label in labels)  # as in the data
        for name in names:
            if not name or names.count(name) > 1:
                raise ValueError(f"label {name!r} is listed twice" if name else "a label is empty")
        return names


class LabelledPairs(SentenceTask):
    """Arrange a pair as two segments; its class is the pair's label. Subclass it for a task on your own pairs.

    Classes are as frequent as in the data: the paper gives no rule for these tasks, so they are not balanced (ours).
    """

    needs = "labelled pairs of texts (a corpus with `pairs` in the recipe)"
    baseline_name = OVERLAP_NAME
    legend = "the label is that of the pair (1), (2) in the data"
    corpus_kind = "pairs"
    labels_from_data = True
    balanced = False
    Options = LabelledPairsOptions

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes; empty until the options or the data set them."""
        return self.options.labels or ()

    @property
    def allows_attached_tasks(self) -> bool:  # type: ignore[override]
        return bool(self.options.allows_attached_tasks)

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Return whether this is a pair of non-empty texts with a label of the task."""
        return document.label in self._classes and pair_texts(document) is not None

    def arrange(self, source: Source, label: str | None, max_tokens: int, rng: Generator) -> Arrangement | None:
        """Arrange both texts, the longer one truncated first; one instance per pair.

        Raises `TaskError` for a label that is not a class. Returns None if a unit of each text does not fit.
        """
        document = source.document
        if (segments := truncate_pair(document, max_tokens)) is None:
            return None
        if document.label not in self._classes:
            raise TaskError(
                f"task {self.name!r}, document {document.name!r}: its label {document.label!r} is none of the classes "
                f"{', '.join(self.labels)}."
            )
        return Arrangement(segments, self._classes[document.label])

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return np.full(len(positions), overlap(sequence), np.int64)

    @cached_property
    def _classes(self) -> dict[str | None, int]:
        return {label: number for number, label in enumerate(self.labels)}


@register
class DiscourseRelation(LabelledPairs):
    """Predict the connective removed between two sentences (paper, Discourse Relation Task)."""

    name = "discourse_relation"
    title = "Discourse relation"
    about = "Which connective was between two sentences?"
    legend = "the label is the connective removed between (1) and (2)"


@register
class IRRelevance(LabelledPairs):
    """Predict the relevance of a title to a query: clicked, shown, or irrelevant (paper, IR Relevance Task)."""

    name = "ir_relevance"
    title = "IR relevance"
    about = "How relevant is a title to a query?"
    legend = "(1) is the query, (2) the title; 0: clicked, 1: shown and not clicked, 2: of another query"
