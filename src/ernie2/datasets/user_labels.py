"""Read and check the labels of user files; errors name the line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ernie2.corpora.cells import DASH, are_nli_labels, is_unlabelled, parse_label, parse_number
from ernie2.datasets.examples import Example, Head, Label, Split
from ernie2.datasets.tag_schemes import Scheme, TaggedText, check_prefixes, detect_scheme, parse_scheme, scheme_notes
from ernie2.errors import DataError, did_you_mean
from ernie2.storage.tables import Row

_DASHES_LEFT_OUT = f"rows with the label {DASH}, on which annotators did not agree, are left out"
_MAX_LABELS, _WIDTH = 20, 40


def read_label(kind: Head, value: Any, name: str, place: str, changes: Counter[str]) -> Label | None:
    """Return the label in a cell for this kind of task, or None."""
    if is_unlabelled(value):
        return None
    if kind == "regression":
        number = parse_number(value)
        if number is None:
            raise DataError(f"{place}: {value!r} is not a number; a regression task needs one for every example.")
        return number
    if kind == "multi_label":
        parts = value if isinstance(value, list) else [part.strip() for part in str(value).split("|")]
        labels = tuple(label for part in parts if (label := parse_label(part, name, place, changes)) is not None)
        if len(labels) < len(parts):
            changes["empty labels in lists of labels are left out"] += len(parts) - len(labels)
        return labels
    return parse_label(value, name, place, changes)


def read_tags(values: Sequence[Any], name: str, place: str, changes: Counter[str]) -> tuple[str, ...]:
    """Return the tags of a list. Raises `DataError` for a missing tag."""
    tags = [parse_label(value, name, place, changes) for value in values]
    if None in tags:
        raise DataError(f"{place}: token {tags.index(None) + 1} has no tag in {name!r}; every token needs one.")
    return tuple(tag for tag in tags if tag is not None)


def drop_dash_labels(
    kind: Head, examples: list[Example], rows: list[Row], trained: Collection[Label], changes: Counter[str]
) -> tuple[list[Example], list[Row]]:
    """Return examples and rows without label `-`, which marks disagreement of annotators."""
    if kind != "classification" or not are_nli_labels([str(label) for label in trained]):
        return examples, rows
    remaining = [number for number, example in enumerate(examples) if example.label != DASH]
    if len(remaining) < len(examples):
        changes[_DASHES_LEFT_OUT] = len(examples) - len(remaining)
    return [examples[number] for number in remaining], [rows[number] for number in remaining]


def clear_minus_one_labels(
    kind: Head, examples: list[Example], trained: Collection[Label], changes: Counter[str]
) -> list[Example]:
    """Return test examples with label -1 set to None: GLUE and CLUE mark rows without a label by -1.

    For regression, only if all labels are -1. Counts changed rows, and rows without a label if others have one.
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


def abbreviate_labels(labels: Sequence[str]) -> str:
    """Return labels for a message: the first 20, abbreviated, and the number of others."""
    rest = len(labels) - _MAX_LABELS
    names = [_abbreviate(label) for label in labels[:_MAX_LABELS]]
    return ", ".join(names) + (f" and {rest:,} more" if rest > 0 else "")


def check_labelled(examples: Sequence[Example], rows: Sequence[Row], label: str) -> None:
    for example, row in zip(examples, rows, strict=True):
        if example.label is None:
            hint = " For a question without an answer, write []." if example.pair is not None else ""
            raise DataError(f"{row.place}: there is no label in {label!r}; fill it or remove the row.{hint}")


def check_train(kind: Head, examples: Sequence[Example], known: Sequence[str], file: str, label: str) -> None:
    if len(examples) < 2:
        raise DataError(f"{file}: only one row; training needs two or more. Add examples.")
    if kind == "classification" and len(known) < 2:
        raise DataError(f"{file}: every {label} is {known[0]!r}; a classifier needs at least two classes.")
    if kind == "tagging" and len(known) < 2:
        raise DataError(f"{file}: every tag is {known[0]!r}; tagging needs at least two tags.")
    if kind == "multi_label" and not known:
        raise DataError(f"{file}: every {label} is empty; multi-label classification needs at least one class.")
    if kind == "regression" and len({example.label for example in examples}) < 2:
        raise DataError(f"{file}: every {label} is {examples[0].label}; there is nothing to learn from one value.")


def check_known(kind: Head, examples: Sequence[Example], rows: Sequence[Row], known: Sequence[str]) -> None:
    if kind in ("regression", "span"):
        return
    for example, row in zip(examples, rows, strict=True):
        label = example.label
        for name in label if isinstance(label, tuple) else () if label is None else (label,):
            if name not in known:
                raise DataError(
                    f"{row.place}: the label {_abbreviate(str(name))!r} does not occur in training."
                    f"{did_you_mean(str(name), known)} Known there: {abbreviate_labels(known)}."
                )


def check_answers(
    split: str, file: str, examples: list[Example], counts: Counter[str], notes: list[str]
) -> list[Example]:
    """Return the examples of a span split, without labels for a test file without any answer. Appends to `notes`."""
    answered = sum(bool(example.label) for example in examples)
    if answered == 0 and split == "test":
        return [replace(example, label=None) for example in examples]
    if answered == 0:
        raise DataError(f"no question in {file} has an answer; training and development files need some.")
    if split != "test" and counts["lost"] == answered:
        raise DataError(f"{file}: no answer occurs in its context; check the order of the two texts.")
    if unanswerable := sum(example.label == () for example in examples):
        notes.append(f"{file}: {unanswerable:,} of {len(examples):,} questions are unanswerable")
    return examples


def resolve_scheme(
    splits: dict[str, Split], rows: dict[str, list[Row]], name: str | None
) -> tuple[Scheme | None, str, dict[str, Split]]:
    """Return (tag scheme, its description, splits with notes on tags that do not follow it)."""
    tagged = {
        split_name: [
            TaggedText(row.place, tuple(map(str, example.label)))
            for example, row in zip(split.examples, rows[split_name], strict=True)
            if isinstance(example.label, tuple)
        ]
        for split_name, split in splits.items()
    }
    if name is not None:
        scheme = parse_scheme(name)
        description = f"{scheme or 'none'}, as named"
        if scheme is not None:
            check_prefixes(tagged["train"], scheme)
    else:
        scheme, why = detect_scheme(tagged["train"])
        description = f"{scheme or 'none'} ({why})"
    if scheme is None:
        return None, description, splits
    with_notes = {
        split_name: replace(split, notes=(*split.notes, *scheme_notes(split.files[0], tagged[split_name], scheme)))
        for split_name, split in splits.items()
    }
    return scheme, description, with_notes


def _abbreviate(label: str) -> str:
    return label if len(label) <= _WIDTH else label[:_WIDTH] + "…"


def case_conflict_notes(file: str, labels: Sequence[str]) -> list[str]:
    """Return a note on labels that differ only in case, if there are any."""
    by_case: dict[str, list[str]] = {}
    for label in labels:
        by_case.setdefault(label.casefold(), []).append(label)
    groups = [" and ".join(map(repr, names)) for names in by_case.values() if len(names) > 1]
    if not groups:
        return []
    listed = "; ".join(groups[:3]) + (f"; and {len(groups) - 3} more" if len(groups) > 3 else "")
    return [f"{file}: labels differ only in case ({listed}); they are separate classes. Use one spelling if not meant"]
