"""Read rows of declared datasets as examples: classes, scores, or tags, in their official spelling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ernie2.corpora.cells import (
    DASH,
    are_nli_labels,
    check_characters,
    describe_changes,
    is_missing,
    parse_label,
    parse_number,
    parse_tokens,
    row_name,
)
from ernie2.corpora.documents import parse_id
from ernie2.datasets.declarations import Columns, Dataset
from ernie2.datasets.examples import Example
from ernie2.errors import DataError
from ernie2.formatting import quantity
from ernie2.storage.files import json_type
from ernie2.storage.tables import Row, column, read_rows

SEPARATOR = "\x02"
"""Separates tokens, and tags, in the MSRA-NER files released with ERNIE."""


def read_labelled(dataset: Dataset, file: str, *, labelled: bool) -> tuple[list[Example], list[str]]:
    """Return (examples, notes) of one file in the form `rows` or `tags`.

    Texts are not changed. If not `labelled` (a test split), a missing label column and an empty label give `label`
    None. Examples with empty texts, which some official datasets have, are included and counted in the notes. Raises
    `DataError` with the line for a missing column, an unknown label, and tags that do not match their tokens.
    """
    columns = dataset.columns
    assert columns is not None, f"{dataset.name} is declared without columns"
    dropped: list[str] | None = [] if dataset.ragged else None
    rows = read_rows(file, (*columns.text, *columns.pair), columns.without_header, dropped)
    undecided = labelled and are_nli_labels(dataset.labels)
    changes: Counter[str] = Counter()
    examples, dashes = [], 0
    for number, row in enumerate(rows):
        if undecided and any(row.cells.get(name) == DASH for name in columns.label):
            dashes += 1
            continue
        examples.append(_example(dataset, columns, row, number, changes, labelled=labelled))
    notes = describe_changes(file, changes)
    if dashes:
        notes.append(
            f"{file}: {quantity(dashes, 'row')} with the label {DASH}, on which annotators did not agree, left out"
        )
    if dropped:
        notes.append(
            f"{file}: {quantity(len(dropped), 'row')} without the right number of cells left out (first: {dropped[0]})"
        )
    if empty := sum(not example.text.strip() or example.pair == "" for example in examples):
        notes.append(f"{file}: {quantity(empty, 'example')} with an empty text kept")
    return examples, notes


def class_name(
    value: Any,
    labels: Sequence[str],
    aliases: Mapping[str, str] | None,
    place: str,
    changes: Counter[str] | None = None,
) -> str | None:
    """Return the class of a cell: its name, another spelling of it, or its index as a number (not a string).

    None if there is no label: null, NaN, "", or -1 and `-` unless a class has that name. `changes`: see `parse_label`.
    Raises `DataError` for anything else.
    """
    name = parse_label(value, "label", place, changes)
    if name is None or (name in ("-1", DASH) and name not in labels):
        return None
    if not isinstance(value, str | bool) and 0 <= int(name) < len(labels):
        return labels[int(name)]
    name = (aliases or {}).get(name, name)
    if name not in labels:
        raise DataError(f"{place}: the label {str(value)!r} is none of {', '.join(labels)}.")
    return name


def as_list(value: Any, place: str) -> list[Any]:
    """Return a cell as a list: a list unchanged; a string split at \\x02, or at spaces if it has no \\x02."""
    if isinstance(value, str):
        return value.split(SEPARATOR) if SEPARATOR in value else value.split()
    if isinstance(value, Sequence):
        return list(value)
    raise DataError(f"{place}: {json_type(value)} is not a list or text.")


def _example(
    dataset: Dataset, columns: Columns, row: Row, number: int, changes: Counter[str], *, labelled: bool
) -> Example:
    identity = row_name(row.cells, columns.id, number)
    if dataset.form == "tags":
        return _tagged(dataset, columns, row, identity, labelled=labelled)
    return Example(
        identity,
        _text(row, columns.text),
        _text(row, columns.pair) if columns.pair else None,
        _label(dataset, columns, row, changes, labelled=labelled),
        group=_group(row, columns) if columns.group else None,
    )


def _group(row: Row, columns: Columns) -> str:
    name = column(row, columns.group)
    if not (group := parse_id(row.cells[name], name, row.place)):
        raise DataError(f"{row.place}: {name!r} is empty; it must name the question of the row.")
    return group


def _text(row: Row, alternatives: Sequence[str]) -> str:
    name = column(row, alternatives)
    value = row.cells[name]
    if not isinstance(value, str):
        raise DataError(f"{row.place}: the text in {name!r} is {json_type(value)}, not a string.")
    check_characters(value, row.place)
    return value


def _label(
    dataset: Dataset, columns: Columns, row: Row, changes: Counter[str], *, labelled: bool
) -> str | float | None:
    if not labelled and not any(name in row.cells for name in columns.label):
        return None
    value = row.cells[column(row, columns.label)]
    if dataset.head == "regression":
        label: str | float | None = _score(value, row.place)
    else:
        label = class_name(value, dataset.labels, dataset.aliases, row.place, changes)
    if label is None and labelled:
        raise DataError(f"{row.place}: there is no label; training and development examples need one.")
    return label


def _score(value: Any, place: str) -> float | None:
    """Return a number; None for -1, the Hub's mark for a missing score."""
    if is_missing(value):
        return None
    score = parse_number(value)
    if score is None:
        raise DataError(f"{place}: {value!r} is not a number; a regression dataset needs one.")
    return None if score == -1 else score


def _tagged(dataset: Dataset, columns: Columns, row: Row, identity: str, *, labelled: bool) -> Example:
    name = column(row, columns.text)
    tokens = parse_tokens(as_list(row.cells[name], row.place), name, row.place)
    if not labelled and not any(name in row.cells for name in columns.label):
        return Example(identity, "".join(tokens), tokens=tokens)
    values = as_list(row.cells[column(row, columns.label)], row.place)
    tags = [class_name(value, dataset.labels, dataset.aliases, row.place) for value in values]
    if len(tags) != len(tokens):
        raise DataError(f"{row.place}: {len(tokens)} tokens but {len(tags)} tags; every token needs one.")
    if None in tags:
        raise DataError(f"{row.place}: a token has no tag; every token needs one.")
    return Example(identity, "".join(tokens), label=tuple(tag for tag in tags if tag is not None), tokens=tokens)
