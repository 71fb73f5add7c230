"""Detection of the kind of task of a user's training file; the reason is printed, and `--head` overrides it.

The first matching rule decides:
1. labels are answers (objects with `text`, or empty lists for unanswerable questions) and there are two texts → span;
   the texts are question and context; if all lists are empty, the columns must have the names of SQuAD's form;
2. texts are lists, or contain \\x02 → tagging;
3. labels have as many words as their texts, and are tags (O, B-…) or have several words in at least three rows
   → tagging;
4. labels are lists → multi_label;
5. all labels are numbers, but some are infinite or too large, such as 1e999 → error with the line;
6. all labels are numbers, and one has a fraction → regression;
7. all labels are whole numbers, with more than 20 different values, not written as strings (JSON, parquet), and not all
   values from 0 or 1 to the highest → error: they may be classes or a scale;
8. else → classification.

A list of choices, and tags that do not match the words of their texts, are errors. In .tsv and .csv, a cell with a JSON
list or object is read as a list or object.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ernie2.config.plain_yaml import short_repr
from ernie2.corpora.cells import (
    DASH,
    are_nli_labels,
    is_infinite,
    is_python_repr,
    is_unlabelled,
    parse_json_cell,
    parse_label,
    parse_number,
    parse_table_cell,
)
from ernie2.datasets.examples import Head
from ernie2.datasets.labelled_files import SEPARATOR
from ernie2.errors import DataError
from ernie2.formatting import quantity
from ernie2.storage.tables import Row

HEAD_NAMES: Mapping[Head, str] = {"span": "extractive question answering", "multi_label": "multi-label classification"}
"""Head → name of the kind of task in messages, if it differs."""
MAX_INTEGER_CLASSES = 20
"""Number of different whole numbers up to which labels are classes without further checks."""
CHOICES = ("choice", "choices", "options", "endings", "candidates")
"""Column names of the choices in multiple-choice data."""

_TAG = re.compile(r"O|[BIESLUM]-\S+")
_TAGGED_ROWS = 3


def guess_head(rows: Sequence[Row], texts: Sequence[str], label: str) -> tuple[Head, str]:
    """Return (head, reason) by the rules at the top of this file."""
    cells = [
        (row, parse_table_cell(row.cells[label], row.place)) for row in rows if not is_unlabelled(row.cells[label])
    ]
    labels = [value for _, value in cells]
    if not labels:
        raise DataError(f"{rows[0].place}: the column {label!r} is empty in all rows; training needs labels.")
    for row in rows:
        for name in CHOICES:
            choices = row.cells.get(name)
            if isinstance(parse_json_cell(choices, row.place), list | dict) or is_python_repr(choices):
                raise multiple_choice_error(row.place, name)
    strict = all(is_python_repr(row.cells[texts[0]]) for row in rows)  # a single text may look like a list
    firsts = [(parse_table_cell if strict else parse_json_cell)(row.cells[texts[0]], row.place) for row in rows]
    if any(_is_answer(value) for value in labels) and len(texts) == 1:
        raise DataError(
            f"{rows[0].place}: {label} holds answers, which need two texts, question and context: --text "
            "question,context."
        )
    if any(_is_answer(value) for value in labels) and all(_is_answer(value) or value == [] for value in labels):
        return "span", f"column {label!r}"
    if all(value == [] for value in labels) and (label == "answers" or list(texts) == ["question", "context"]):
        return "span", f"there are two texts (question, context), but every {label} is empty"
    if all(isinstance(value, list) or (isinstance(value, str) and SEPARATOR in value) for value in firsts):
        return "tagging", f"lists of tokens in {texts[0]!r}"
    if len(texts) == 1 and (reason := _spaced_tags(cells, texts[0], label)):
        return "tagging", reason
    if all(isinstance(value, list) for value in labels):
        return "multi_label", f"lists of labels in {label!r}"
    numbers = [number for value in labels if (number := parse_number(value)) is not None]
    beyond = [(row.place, value) for row, value in cells if is_infinite(value)]
    if numbers and beyond and len(numbers) + len(beyond) == len(labels):
        place, value = beyond[0]
        raise DataError(
            f"{place}: the label in {label!r} is {short_repr(value)}, not a finite number as the others are. Correct "
            "it; if labels are names of classes, use --head classification."
        )
    if len(numbers) < len(labels):
        names = {str(parse_label(value, label, row.place)) for row, value in cells}
        names -= {DASH} if are_nli_labels(names) else set()
        hint = "" if 2 * sum(" " in name for name in names) <= len(names) else "; if they are tags, use --head tagging"
        return "classification", f"{quantity(len(names), 'class', 'classes')} in {label!r}{hint}"
    if any(not number.is_integer() for number in numbers):
        return "regression", f"numbers with fractions in {label!r}"
    spellings = _spellings(cells, label)
    if several := [names for names in spellings.values() if len(names) > 1]:
        return "classification", (
            f"{sum(map(len, spellings.values()))} classes in {label!r}, of which {' and '.join(several[0])} are the "
            "same number; use one spelling if they are one class"
        )
    strings = all(row.typed and isinstance(value, str) for row, value in cells)
    return "classification", _whole_numbers(numbers, label, rows[0], strings=strings)


def _spellings(cells: Sequence[tuple[Row, Any]], label: str) -> dict[float | None, list[str]]:
    """Return the classes that are numbers, such as 1 and 01, by their number."""
    spellings: dict[float | None, list[str]] = {}
    for name in sorted({str(parse_label(value, label, row.place)) for row, value in cells}):
        spellings.setdefault(parse_number(name), []).append(name)
    return spellings


def multiple_choice_error(place: str, name: str) -> DataError:
    """Return the error for multiple-choice data, with the choices in column `name`."""
    return DataError(
        f"{place}: {name!r} is a list of choices; multiple choice is not supported. Write one row per choice, with "
        "question and choice as the two texts and 1 or 0 as the label."
    )


def _spaced_tags(cells: Sequence[tuple[Row, Any]], text: str, label: str) -> str:
    """Return why labels are space-separated tags, one for each word of the text, or "" if they are not.

    Raises `DataError` if all labels are tags, but do not match their texts or tag single tokens.
    """
    if not all(isinstance(value, str) and isinstance(row.cells[text], str) for row, value in cells):
        return ""
    counts = [(row.place, len(row.cells[text].split()), len(value.split())) for row, value in cells]
    several = any(tags > 1 for _, _, tags in counts)
    words = {word for _, value in cells for word in value.split()}
    marked = all(_TAG.fullmatch(word) for word in words) and words != {"O"}
    odd = next((one for one in counts if one[1] != one[2]), None)
    if marked and not several and odd is None:
        raise DataError(
            f"{cells[0][0].place}: every {text} is one token and every {label} a tag, such as {cells[0][1]}. Give "
            "complete sentences, as lists or in a .conll file, or use --head classification."
        )
    if marked and several and odd is not None:
        place, tokens, tags = odd
        raise DataError(
            f"{place}: {quantity(tags, 'tag')} in {label!r}, but {quantity(tokens, 'word')} in {text!r}. Separate "
            "tokens by spaces, one for each tag, and use --head tagging; or use --head classification."
        )
    enough = len(counts) >= _TAGGED_ROWS and all(tags > 1 for _, _, tags in counts)
    if odd is None and several and (marked or enough):
        return f"one tag in {label!r} for each word of {text!r}; if these are classes, use --head classification"
    return ""


def _whole_numbers(numbers: Sequence[float], label: str, first: Row, *, strings: bool) -> str:
    """Return why whole numbers are classes. Raises `DataError` if they may be a scale."""
    values = {int(number) for number in numbers}
    low, high = min(values), max(values)
    summary = f"{quantity(len(values), 'class', 'classes')} in {label!r}"
    if len(values) <= MAX_INTEGER_CLASSES:
        return summary
    if strings:
        return f"{summary}, whole numbers written as strings; if they are a scale, use --head regression"
    if low in (0, 1) and high - low + 1 == len(values):
        return f"{summary}, the whole numbers from {low} to {high}; if they are a scale, use --head regression"
    raise DataError(
        f"{first.place.rpartition(', ')[0]}: {label!r} has {len(values)} different whole numbers between {low} and "
        f"{high}, which may be classes or a scale. Use --head classification or --head regression."
    )


def _is_answer(value: Any) -> bool:
    return _is_answer(value[0]) if isinstance(value, list) and value else isinstance(value, dict) and "text" in value
