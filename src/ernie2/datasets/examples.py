"""Examples and data sets as values: what every reader gives and the training half takes, whatever the file was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ernie2.batches.order import generator
from ernie2.datasets.tag_schemes import Scheme
from ernie2.errors import DataError

Head = Literal["classification", "regression", "multi_label", "tagging", "span"]
"""What is put on the encoder: a class, a number, any number of classes, a tag a token, or a run of the second text."""
METRICS: dict[Head, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "macro_f1", "matthews", "mrr"),
    "regression": ("pearson", "spearman"),
    "multi_label": ("micro_f1",),
    "tagging": ("entity_f1", "token_accuracy"),
    "span": ("exact_match", "answer_f1"),
}
"""The metrics that a head can be measured by; finetuning/scoring/metrics.py computes them."""
Provenance = Literal["official", "subset", "stand-in", "own"]
"""official: whole, by name and size; subset: a part of it; stand-in: other text in its place; own: a user's file."""

PROVENANCES: tuple[Provenance, ...] = ("own", "official", "subset", "stand-in")
"""From the best to the worst; a data set stands as its worst split does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and where it begins in the second text, in characters; `start` is -1 where that does not hold it."""

    text: str
    start: int


Label = str | float | tuple[str, ...] | tuple[Answer, ...]
"""By head: a class name, a number, class names, a tag for each of `tokens`, or every accepted answer (none where the
question is unanswerable)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled input. `label` is None where the file holds none, as official test files do.

    Span heads: `text` is the question and `pair` the context. Tagging heads: `tokens` are what is tagged and `text` is
    them joined. `group` binds the candidates of one question (metric mrr).
    """

    id: str
    text: str
    pair: str | None = None
    label: Label | None = None
    tokens: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class Split:
    """The examples of one split, the files they came from, and what was repaired or left out, in words."""

    examples: tuple[Example, ...]
    files: tuple[str, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, so that a metric can be taken."""
        return bool(self.examples) and all(example.label is not None for example in self.examples)


@dataclass(frozen=True)
class LabelledData:
    """A data set ready for fine-tuning.

    `labels`: class names or tags in the order of their ids, empty for regression and span heads. `positive`: the class
    that F1 and MRR are about. `answer_rules`: how the answers of span heads are scored, a key of
    `finetuning.scoring.answers.RULES`. `scheme`: how tags mark entities, None where they mark none. `trained_on`: the
    set whose models predict this one, which has no training file. `unanswerable`: whether some questions have no
    answer. `texts`: the columns that were read. `reasons`, of users' own files: what was guessed and why.
    """

    name: str
    head: Head
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    splits: Mapping[str, Split]
    positive: str | None = None
    answer_rules: str | None = None
    scheme: Scheme | None = None
    trained_on: str | None = None
    unanswerable: bool = False
    texts: tuple[str, ...] = ("text",)
    reasons: tuple[str, ...] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)
    """split -> the file names that would have been read, for messages about a split that is missing."""

    @property
    def provenance(self) -> Provenance:
        """The worst provenance of any split."""
        return max((split.provenance for split in self.splits.values()), key=PROVENANCES.index)

    def require_split(self, split: str) -> Split:
        """The split of this name. Raises `DataError`, with the file names that are accepted, when it is not there."""
        if split not in self.splits:
            accepted = f" Accepted file names: {self.accepted[split]}." if split in self.accepted else ""
            raise DataError(
                f"{self.name} has no {split} split; there is: {', '.join(self.splits) or 'none'}.{accepted} "
                "Put the file there, or name it explicitly."
            )
        return self.splits[split]

    def limit_train_examples(self, count: int | None) -> LabelledData:
        """This with `count` of its training examples, always the same, in their order; itself where it has no more.

        What was official is a subset then, so that no figure of the paper stands beside it as if it were comparable.
        """
        train = self.require_split("train")
        if count is None or count >= len(train.examples):
            return self
        chosen = sorted(generator("training examples", count).permutation(len(train.examples))[:count])
        provenance: Provenance = max(
            train.provenance, "own" if train.provenance == "own" else "subset", key=PROVENANCES.index
        )
        notes = (*train.notes, f"{count:,} of {len(train.examples):,} training examples")
        fewer = replace(train, examples=tuple(train.examples[i] for i in chosen), provenance=provenance, notes=notes)
        return replace(self, splits={**self.splits, "train": fewer})
