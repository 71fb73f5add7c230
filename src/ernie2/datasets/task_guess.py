"""The kind of task of a user's own training file, guessed by a rule that is printed and can be overruled with `--head`.

The rule, on the training file, first match wins:
1. labels are answers (objects with `text`, or empty lists for unanswerable questions) and there are two texts → span;
   texts are question, context; where all lists are empty, only if the columns are called as in SQuAD's form;
2. texts are lists, or hold \\x02 → tagging;
3. labels are words, one for every word of the text, and are tags (O, B-…) or have several words in at least three rows
   → tagging;
4. labels are lists → multi_label;
5. all labels but some are numbers, and those are infinite or too large, such as 1e999 → refused with their line;
6. every label is a number and one has a fraction → regression;
7. every label is a whole number, there are more than 20 different ones, they are not written as strings (JSON, parquet)
   and are not all numbers from 0 or 1 to the highest → refused: classes or a scale, the user has to say;
8. else → classification.
A list of choices, and tags that do not fit the words of their texts, are refused.
In .tsv and .csv a cell that is a JSON list or object counts as that list or object.
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
"""What users call a kind of task, where it is not the name of its head."""
MAX_INTEGER_CLASSES = 20
"""So many different whole numbers are taken for classes without asking more of them."""
CHOICES = ("choice", "choices", "options", "endings", "candidates")
"""Columns in which data of multiple choice keep the list of choices."""

_TAG = re.compile(r"O|[BIESLUM]-\S+")
_TAGGED_ROWS = 3


def guess_head(rows: Sequence[Row], texts: Sequence[str], label: str) -> tuple[Head, str]:
    """Return (head, what in the columns decided it) by the rule at the top of this file."""
    cells = [
        (row, parse_table_cell(row.cells[label], row.place)) for row in rows if not is_unlabelled(row.cells[label])
    ]
    labels = [value for _, value in cells]
    if not labels:
        raise DataError(f"{rows[0].place}: the column {label!r} is empty throughout; training needs labels.")
    for row in rows:
        for name in CHOICES:
            choices = row.cells.get(name)
            if isinstance(parse_json_cell(choices, row.place), list | dict) or is_python_repr(choices):
                raise multiple_choice_error(row.place, name)
    strict = all(is_python_repr(row.cells[texts[0]]) for row in rows)  # one text of many may be written so
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
            "same number; write it in one way if it is one class"
        )
    strings = all(row.typed and isinstance(value, str) for row, value in cells)
    return "classification", _whole_numbers(numbers, label, rows[0], strings=strings)


def _spellings(cells: Sequence[tuple[Row, Any]], label: str) -> dict[float | None, list[str]]:
    """The names of classes that are numbers, such as 1 and 01, by their number."""
    spellings: dict[float | None, list[str]] = {}
    for name in sorted({str(parse_label(value, label, row.place)) for row, value in cells}):
        spellings.setdefault(parse_number(name), []).append(name)
    return spellings


def multiple_choice_error(place: str, name: str) -> DataError:
    """Return the error for data of multiple choice, whose choices are a list in `name`."""
    return DataError(
        f"{place}: {name!r} is a list of choices; multiple choice is not supported. Write a row for each choice, with "
        "question and choice as the two texts and 1 or 0 as the label."
    )


def _spaced_tags(cells: Sequence[tuple[Row, Any]], text: str, label: str) -> str:
    """Why labels are tags separated by spaces, one for each word of the text; "" where they are not.

    Raises `DataError` where all labels are tags, but do not fit their texts or tag single tokens.
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
            "whole sentences, as lists or in a .conll file, or use --head classification."
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
    """Why whole numbers are classes. Raises `DataError` where they may as well be a scale."""
    different = {int(number) for number in numbers}
    low, high = min(different), max(different)
    said = f"{quantity(len(different), 'class', 'classes')} in {label!r}"
    if len(different) <= MAX_INTEGER_CLASSES:
        return said
    if strings:
        return f"{said}, whole numbers written as strings; if they are a scale, use --head regression"
    if low in (0, 1) and high - low + 1 == len(different):
        return f"{said}, the whole numbers from {low} to {high}; if they are a scale, use --head regression"
    raise DataError(
        f"{first.place.rpartition(', ')[0]}: {label!r} has {len(different)} different whole numbers between {low} and "
        f"{high}, which may be classes or a scale. Use --head classification or --head regression."
    )


def _is_answer(value: Any) -> bool:
    return _is_answer(value[0]) if isinstance(value, list) and value else isinstance(value, dict) and "text" in value
