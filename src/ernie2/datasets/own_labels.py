"""Labels of users' own files: what a cell means, and which rows have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ernie2.corpora.cells import DASH, class_of, dash_is_no_label, is_unlabelled, number_of
from ernie2.datasets.examples import Example, Head, Label
from ernie2.errors import DataError
from ernie2.storage.tables import Row

_DASHES_LEFT_OUT = f"rows with the label {DASH}, on which annotators did not agree, are left out"


def label_of(kind: Head, value: Any, name: str, place: str, changes: Counter[str]) -> Label | None:
    """Return the label that a cell holds for this kind of task; None where it holds none."""
    if is_unlabelled(value):
        return None
    if kind == "regression":
        number = number_of(value)
        if number is None:
            raise DataError(f"{place}: {value!r} is not a number; a regression task needs one for every example.")
        return number
    if kind == "multi_label":
        parts = value if isinstance(value, list) else [part.strip() for part in str(value).split("|")]
        made = tuple(label for part in parts if (label := class_of(part, name, place, changes)) is not None)
        if len(made) < len(parts):
            changes["empty labels in lists of labels are left out"] += len(parts) - len(made)
        return made
    return class_of(value, name, place, changes)


def tags_of(values: Sequence[Any], name: str, place: str, changes: Counter[str]) -> tuple[str, ...]:
    """Return the tags of a list. Raises `DataError` where a token has none."""
    tags = [class_of(value, name, place, changes) for value in values]
    if None in tags:
        raise DataError(f"{place}: token {tags.index(None) + 1} has no tag in {name!r}; every token needs one.")
    return tuple(tag for tag in tags if tag is not None)


def without_dashes(
    kind: Head, examples: list[Example], rows: list[Row], trained: Collection[Label], changes: Counter[str]
) -> tuple[list[Example], list[Row]]:
    """Return examples and rows without those on whose label annotators did not agree."""
    if kind != "classification" or not dash_is_no_label([str(label) for label in trained]):
        return examples, rows
    left = [number for number, example in enumerate(examples) if example.label != DASH]
    if len(left) < len(examples):
        changes[_DASHES_LEFT_OUT] = len(examples) - len(left)
    return [examples[number] for number in left], [rows[number] for number in left]


def without_minus_one(
    kind: Head, examples: list[Example], trained: Collection[Label], changes: Counter[str]
) -> list[Example]:
    """Return test examples with -1, by which GLUE and CLUE mark rows without a label, read as having none.

    Of numbers only where all are -1. Counts them, and the rows without a label where others have one.
    """
    none: Label = -1.0 if kind == "regression" else "-1"
    marked = [example.label == none for example in examples]
    if kind in ("classification", "regression") and none not in trained and (all(marked) or kind == "classification"):
        if any(marked):
            changes["labels are -1, which training does not have, and count as none"] = sum(marked)
        pairs = zip(examples, marked, strict=True)
        examples = [replace(example, label=None) if bare else example for example, bare in pairs]
    bare = sum(example.label is None for example in examples)
    if 0 < bare < len(examples):
        changes["rows have no label, so this test file is not scored"] = bare
    return examples
