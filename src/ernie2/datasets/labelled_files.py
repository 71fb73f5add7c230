"""Rows of declared sets → examples: classes, scores, and tags of tokens, each with its official spelling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ernie2.datasets.declarations import Columns, Dataset
from ernie2.datasets.examples import Example
from ernie2.datasets.table_files import Row, column, read_table
from ernie2.errors import DataError

SEPARATOR = "\x02"
"""Stands between tokens, and between tags, in the MSRA-NER files that came with ERNIE."""


def read_labelled(dataset: Dataset, file: str, *, labelled: bool) -> tuple[list[Example], list[str]]:
    """(examples, notes) of one file of a set in the form `rows` or `tags`.

    Texts are kept to the character. Where not `labelled` (a test split), a missing label column and an empty label give
    `label` None. An empty text is kept, as the official sets hold some, and counted in the notes. Raises `DataError`,
    naming the line, for a missing column, a label that the set does not have, and tags that do not fit their tokens.
    """
    columns = dataset.columns
    assert columns is not None, f"{dataset.name} is declared without columns"
    dropped: list[str] | None = [] if dataset.ragged else None
    rows = read_table(file, columns.names, columns.without_header, dropped)
    examples = [_example(dataset, columns, row, number, labelled=labelled) for number, row in enumerate(rows)]
    notes = []
    if dropped:
        notes.append(f"{file}: {len(dropped)} rows without the right number of cells left out (first: {dropped[0]})")
    if empty := sum(not example.text.strip() or example.pair == "" for example in examples):
        notes.append(f"{file}: {empty} examples with an empty text kept")
    return examples, notes


def class_name(value: Any, labels: Sequence[str], aliases: Mapping[str, str] | None, place: str) -> str | None:
    """The class that a cell means: its name, another spelling, or its index as an integer; None for -1, None or ''.

    -1 means no label as a number and, in text tables, as the text '-1'.

    Raises `DataError` for anything else.
    """
    if value is None or value == "" or (value in (-1, "-1") and "-1" not in labels):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    name = str(value).strip()
    name = (aliases or {}).get(name, name)
    if name not in labels:
        raise DataError(f"{place}: the label {str(value)!r} is none of {', '.join(labels)}.")
    return name


def as_list(value: Any, place: str) -> list[Any]:
    """A cell that holds several things: a list as it is, a string split at \\x02 or, where it has none, at spaces."""
    if isinstance(value, str):
        return value.split(SEPARATOR) if SEPARATOR in value else value.split()
    if isinstance(value, Sequence):
        return list(value)
    raise DataError(f"{place}: {value!r} is neither a list nor text.")


def _example(dataset: Dataset, columns: Columns, row: Row, number: int, *, labelled: bool) -> Example:
    identity = next((str(row.cells[name]) for name in columns.id if name in row.cells), str(number))
    if dataset.form == "tags":
        return _tagged(dataset, columns, row, identity, labelled=labelled)
    return Example(
        identity,
        _text(row, columns.text),
        _text(row, columns.pair) if columns.pair else None,
        _label(dataset, columns, row, labelled=labelled),
        group=str(row.cells[column(row, columns.group)]) if columns.group else None,
    )


def _text(row: Row, alternatives: Sequence[str]) -> str:
    value = row.cells[column(row, alternatives)]
    if not isinstance(value, str):
        raise DataError(f"{row.place}: {value!r} stands where a text is expected.")
    return value


def _label(dataset: Dataset, columns: Columns, row: Row, *, labelled: bool) -> str | float | None:
    if not labelled and not any(name in row.cells for name in columns.label):
        return None
    value = row.cells[column(row, columns.label)]
    if dataset.head == "regression":
        label: str | float | None = _score(value, row.place)
    else:
        label = class_name(value, dataset.labels, dataset.aliases, row.place)
    if label is None and labelled:
        raise DataError(f"{row.place}: there is no label; training and development examples need one.")
    return label


def _score(value: Any, place: str) -> float | None:
    """A number; None for the -1 by which the Hub marks what has no score."""
    if value is None or value == "":
        return None
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{place}: {value!r} is no number; a regression set needs one.")
    return None if score == -1 else score


def _tagged(dataset: Dataset, columns: Columns, row: Row, identity: str, *, labelled: bool) -> Example:
    tokens = tuple(map(str, as_list(row.cells[column(row, columns.text)], row.place)))
    if not labelled and not any(name in row.cells for name in columns.label):
        return Example(identity, "".join(tokens), tokens=tokens)
    values = as_list(row.cells[column(row, columns.label)], row.place)
    tags = [class_name(value, dataset.labels, dataset.aliases, row.place) for value in values]
    if len(tags) != len(tokens):
        raise DataError(f"{row.place}: {len(tokens)} tokens but {len(tags)} tags; every token needs one.")
    if None in tags:
        raise DataError(f"{row.place}: a token has no tag; every token needs one.")
    return Example(identity, "".join(tokens), label=tuple(tag for tag in tags if tag is not None), tokens=tokens)
