"""Checks of users' own labelled files, all before training; every fault is named with its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from ernie2.datasets.examples import Example, Head, Split
from ernie2.datasets.tag_schemes import Scheme, Tagged, check_prefixes, decide_scheme, scheme_named, scheme_notes
from ernie2.errors import DataError, did_you_mean
from ernie2.storage.tables import Row

_SHOWN, _WIDTH = 20, 40


def shown(labels: Sequence[str]) -> str:
    """Return labels for a message: the first 20, shortened, and how many more there are."""
    rest = len(labels) - _SHOWN
    names = [_cut(label) for label in labels[:_SHOWN]]
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
                    f"{row.place}: the label {_cut(str(name))!r} does not occur in training."
                    f"{did_you_mean(str(name), known)} Known there: {shown(known)}."
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


def with_scheme(
    splits: dict[str, Split], rows: dict[str, list[Row]], named: str | None
) -> tuple[Scheme | None, str, dict[str, Split]]:
    """(tag scheme, what to report of it, the splits with notes on tags that do not follow it)."""
    tagged = {
        name: [
            Tagged(row.place, tuple(map(str, example.label)))
            for example, row in zip(split.examples, rows[name], strict=True)
            if isinstance(example.label, tuple)
        ]
        for name, split in splits.items()
    }
    if named is not None:
        scheme = scheme_named(named)
        told = f"{scheme or 'none'}, as named"
        if scheme is not None:
            check_prefixes(tagged["train"], scheme)
    else:
        scheme, why = decide_scheme(tagged["train"])
        told = f"{scheme or 'none'} ({why})"
    if scheme is None:
        return None, told, splits
    noted = {
        name: replace(split, notes=(*split.notes, *scheme_notes(split.files[0], tagged[name], scheme)))
        for name, split in splits.items()
    }
    return scheme, told, noted


def _cut(label: str) -> str:
    return label if len(label) <= _WIDTH else label[:_WIDTH] + "…"


def case_notes(file: str, labels: Sequence[str]) -> list[str]:
    """Return one note naming the labels that differ in nothing but case, where there are any."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label.casefold(), []).append(label)
    groups = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    if not groups:
        return []
    shown = "; ".join(groups[:3]) + (f"; and {len(groups) - 3} more" if len(groups) > 3 else "")
    return [f"{file}: labels differ only in case ({shown}); they are separate classes. Use one spelling if not meant"]
