"""Examples, splits and datasets: the common result of all readers and the input of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ernie2.batches.order import generator
from ernie2.datasets.tag_schemes import Scheme
from ernie2.errors import DataError

Head = Literal["classification", "regression", "multi_label", "tagging", "span"]
"""Head on the encoder: a class, a number, several classes, a tag for each token, or a span of the second text."""
METRICS: dict[Head, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "macro_f1", "matthews", "mrr"),
    "regression": ("pearson", "spearman"),
    "multi_label": ("micro_f1",),
    "tagging": ("entity_f1", "token_accuracy"),
    "span": ("exact_match", "answer_f1"),
}
"""Head → its metrics; finetuning/scoring/metrics.py computes them."""
Provenance = Literal["official", "subset", "stand-in", "own"]
"""official: complete, by file name and size; subset: a part of it; stand-in: other text; own: a user file."""

PROVENANCES: tuple[Provenance, ...] = ("own", "official", "subset", "stand-in")
"""From best to worst; the provenance of a dataset is that of its worst split."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its first character in the second text; `start` is -1 if the text does not contain it."""

    text: str
    start: int


Label = str | float | tuple[str, ...] | tuple[Answer, ...]
"""By head: a class name, a number, class names, a tag for each of `tokens`, or all accepted answers (empty for an
unanswerable question)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One example. `label` is None if the file has none, as in official test files.

    Span heads: `text` is the question and `pair` the context. Tagging heads: `tokens` are tagged, and `text` joins
    them. `group`: the question to which a candidate belongs (metric mrr).
    """

    id: str
    text: str
    pair: str | None = None
    label: Label | None = None
    tokens: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class Split:
    """The examples of one split, their files, and notes on repaired or skipped data."""

    examples: tuple[Example, ...]
    files: tuple[str, ...]
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, so that metrics can be computed."""
        return bool(self.examples) and all(example.label is not None for example in self.examples)


@dataclass(frozen=True)
class LabelledData:
    """A dataset ready for fine-tuning.

    `labels`: class names or tags in the order of their ids, empty for regression and span heads. `positive`: the class
    of F1 and MRR. `answer_rules`: how the answers of span heads are scored, a key of
    `finetuning.scoring.answers.RULES`. `scheme`: the tag scheme, None without entities. `trained_on`: the dataset whose
    models predict this one, if it has no training file. `unanswerable`: whether some questions have no answer.
    `texts`: the text columns. `reasons`, for user files: what was detected, and why.
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
    """Split → accepted file names, for messages about a missing split."""

    @property
    def provenance(self) -> Provenance:
        """The provenance of the worst split."""
        return max((split.provenance for split in self.splits.values()), key=PROVENANCES.index)

    def require_split(self, split: str) -> Split:
        """Return the split. Raises `DataError`, with the accepted file names, if it is missing."""
        if split not in self.splits:
            accepted = f" Accepted file names: {self.accepted[split]}." if split in self.accepted else ""
            raise DataError(
                f"{self.name} has no {split} split; there is: {', '.join(self.splits) or 'none'}.{accepted} "
                "Add the file, or name it explicitly."
            )
        return self.splits[split]

    def limit_train_examples(self, count: int | None) -> LabelledData:
        """Return the dataset with `count` training examples, always the same ones, in their order.

        An official dataset becomes a subset, so that it is not compared with the paper's results.
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
