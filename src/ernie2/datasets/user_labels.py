"""Labels of users' own files: what a cell means, which rows have none, and checks; every fault is named by its line."""

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
_SHOWN, _WIDTH = 20, 40


def read_label(kind: Head, value: Any, name: str, place: str, changes: Counter[str]) -> Label | None:
    """Return the label that a cell holds for this kind of task; None where it holds none."""
    if is_unlabelled(value):
        return None
    if kind == "regression":
        number = parse_number(value)
        if number is None:
            raise DataError(f"{place}: {value!r} is not a number; a regression task needs one for every example.")
        return number
    if kind == "multi_label":
        parts = value if isinstance(value, list) else [part.strip() for part in str(value).split("|")]
        made = tuple(label for part in parts if (label := parse_label(part, name, place, changes)) is not None)
        if len(made) < len(parts):
            changes["empty labels in lists of labels are left out"] += len(parts) - len(made)
        return made
    return parse_label(value, name, place, changes)


def read_tags(values: Sequence[Any], name: str, place: str, changes: Counter[str]) -> tuple[str, ...]:
    """Return the tags of a list. Raises `DataError` where a token has none."""
    tags = [parse_label(value, name, place, changes) for value in values]
    if None in tags:
        raise DataError(f"{place}: token {tags.index(None) + 1} has no tag in {name!r}; every token needs one.")
    return tuple(tag for tag in tags if tag is not None)


def drop_dash_labels(
    kind: Head, examples: list[Example], rows: list[Row], trained: Collection[Label], changes: Counter[str]
) -> tuple[list[Example], list[Row]]:
    """Return examples and rows without those on whose label annotators did not agree."""
    if kind != "classification" or not are_nli_labels([str(label) for label in trained]):
        return examples, rows
    left = [number for number, example in enumerate(examples) if example.label != DASH]
    if len(left) < len(examples):
        changes[_DASHES_LEFT_OUT] = len(examples) - len(left)
    return [examples[number] for number in left], [rows[number] for number in left]


def clear_minus_one_labels(
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


def abbreviate_labels(labels: Sequence[str]) -> str:
    """Return labels for a message: the first 20, shortened, and how many more there are."""
    rest = len(labels) - _SHOWN
    names = [_abbreviate(label) for label in labels[:_SHOWN]]
    return ", ".join(names) + (f" and {rest:,} more" if rest > 0 else "")


def check_labelled(examples: Sequence[Example], rows: Sequence[Row], label: str) -> None:
    for example, row in zip(examples, rows, strict=True):
        if example.label is None:
            hint = " A question without an answer has [] there." if example.pair is not None else ""
            raise DataError(f"{row.place}: there is no label in {label!r}; fill it or take the row out.{hint}")


def check_train(kind: Head, examples: Sequence[Example], known: Sequence[str], file: str, label: str) -> None:
    if len(examples) < 2:
        raise DataError(f"{file}: one row only; a model cannot be trained or judged on that. Give more examples.")
    if kind == "classification" and len(known) < 2:
        raise DataError(f"{file}: every {label} is {known[0]!r}; a classifier needs examples of two classes at least.")
    if kind == "tagging" and len(known) < 2:
        raise DataError(f"{file}: every tag is {known[0]!r}; tagging needs two tags at least.")
    if kind == "multi_label" and not known:
        raise DataError(f"{file}: every {label} is empty; a model for several classes needs one class at least.")
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
    """The examples of a span split: those of a test file without any answer have no labels. Adds to `notes`."""
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
    splits: dict[str, Split], rows: dict[str, list[Row]], named: str | None
) -> tuple[Scheme | None, str, dict[str, Split]]:
    """(tag scheme, what to report of it, the splits with notes on tags that do not follow it)."""
    tagged = {
        name: [
            TaggedText(row.place, tuple(map(str, example.label)))
            for example, row in zip(split.examples, rows[name], strict=True)
            if isinstance(example.label, tuple)
        ]
        for name, split in splits.items()
    }
    if named is not None:
        scheme = parse_scheme(named)
        told = f"{scheme or 'none'}, as named"
        if scheme is not None:
            check_prefixes(tagged["train"], scheme)
    else:
        scheme, why = detect_scheme(tagged["train"])
        told = f"{scheme or 'none'} ({why})"
    if scheme is None:
        return None, told, splits
    noted = {
        name: replace(split, notes=(*split.notes, *scheme_notes(split.files[0], tagged[name], scheme)))
        for name, split in splits.items()
    }
    return scheme, told, noted


def _abbreviate(label: str) -> str:
    return label if len(label) <= _WIDTH else label[:_WIDTH] + "…"


def case_conflict_notes(file: str, labels: Sequence[str]) -> list[str]:
    """Return one note naming the labels that differ in nothing but case, where there are any."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label.casefold(), []).append(label)
    groups = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if not groups:
        return []
    shown = "; ".join(groups[:3]) + (f"; and {len(groups) - 3} more" if len(groups) > 3 else "")
    return [f"{file}: labels differ only in case ({shown}); they are separate classes. Use one spelling if not meant"]
