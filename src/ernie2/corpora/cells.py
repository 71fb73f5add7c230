"""Cells of labelled files → texts and labels, by the same rules for every file format; normalisations are counted.

Text: a string. Null, NaN and blank strings are missing texts. Other values are errors.

Label: white space is stripped, and collapsed inside. 1.0, which pandas and JSON write for 1, is 1; true and false
become strings. Null, NaN (also spelled as a word) and "" are missing labels. `-` is a missing label in natural language
inference (NLI): SNLI and OCNLI write it if annotators disagreed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ernie2.corpora.long_texts import check_length
from ernie2.errors import DataError
from ernie2.formatting import quantity
from ernie2.storage.files import RepeatedKeyError, json_type, json_value

DASH = "-"
"""The label that SNLI and OCNLI give to pairs on which annotators disagreed."""
NLI_LABELS = frozenset({"entailment", "neutral", "contradiction", "not_entailment", "non-entailment"})
"""Labels of natural language inference, in lower case."""

WHITE_SPACE = "normalised white space in"
TRAILING_ZEROS = "removed .0, as in 1.0, from"

_INTEGRAL = re.compile(r"([+-]?[0-9]{1,18})\.0+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PYTHON_REPR = re.compile(r"\[('|array\(|(None|True|False)\b)|\[?\{'[^']*'\s*:")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_text(value: Any, name: str, place: str) -> str | None:
    """Return the text of a cell unchanged; None if it is missing (null, NaN, blank).

    Raises `DataError`, naming `place`, for a number, list or object, for a lone surrogate, and for a text of more
    than `LONGEST_TEXT` characters.
    """
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: the text in {name!r} is {json_type(value)}, not a string.")
    check_characters(value, place)
    check_length(value, name, place)
    return value if value.strip() else None


def parse_line(value: Any, name: str, place: str) -> str:
    """Return the text of a cell with white space collapsed to single spaces; '' if missing. Raises as `parse_text`."""
    return " ".join((parse_text(value, name, place) or "").split())


def parse_tokens(values: Collection[Any], name: str, place: str) -> tuple[str, ...]:
    """Return a list of tokens as strings. Raises `DataError` for a token that is not a string."""
    for value in values:
        if not isinstance(value, str):
            raise DataError(f"{place}: a token in {name!r} is {json_type(value)}, not a string.")
        check_characters(value, place)
    return tuple(values)


def check_characters(text: str, place: str) -> None:
    """Raise `DataError` for a lone surrogate, which cannot be encoded."""
    if not text.isascii() and (half := _SURROGATE.search(text)):
        raise DataError(
            f"{place}: the text contains \\u{ord(half[0]):04x}, a lone surrogate. Write the complete pair, or "
            "remove it."
        )


def is_missing(value: Any) -> bool:
    """Return whether a cell is null, NaN or an empty string."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def is_unlabelled(value: Any) -> bool:
    """Return whether the cell of a label is missing, blank, or NaN spelled out."""
    return is_missing(value) or (isinstance(value, str) and value.strip() in ("", "nan", "NaN"))


def parse_label(value: Any, name: str, place: str, changes: Counter[str] | None = None) -> str | None:
    """Return the label of a cell as a string; None if there is no label.

    `changes` counts normalisations, by `WHITE_SPACE` and `TRAILING_ZEROS`. Raises `DataError` for a list, an object or
    a number with a fraction.
    """
    if is_unlabelled(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        check_characters(value, place)
        label = " ".join(value.split())
        integer = _INTEGRAL.fullmatch(label)
        if changes is not None and label:
            changes.update([WHITE_SPACE] * (label != value) + [TRAILING_ZEROS] * bool(integer))
        label = integer[1] if integer else label
        return label or None
    if isinstance(value, float) and value.is_integer():
        if changes is not None:
            changes[TRAILING_ZEROS] += 1
        value = int(value)
    if isinstance(value, int):
        return str(value)
    raise DataError(
        f"{place}: the label in {name!r} is {_kind(value)}; a label must be a string, a whole number, true or false."
    )


def describe_changes(file: str, changes: Mapping[str, int]) -> list[str]:
    """Return one line for users per kind of normalisation that was counted."""
    return [
        f"{file}: {what} {quantity(count, 'label')}"
        if what in (WHITE_SPACE, TRAILING_ZEROS)
        else f"{file}: {count:,} {what}"
        for what, count in changes.items()
    ]


def row_name(cells: Mapping[str, Any], columns: Sequence[str], number: int) -> str:
    """Return the name of a row: the first non-missing cell of `columns`, else its number."""
    value = next((cells[column] for column in columns if not is_missing(cells.get(column))), number)
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return f"{value}, a number with a fraction" if math.isfinite(value) else "infinite"
    return json_type(value)


def parse_number(value: Any) -> float | None:
    """Return the finite number of a cell, also if spelled in decimal (-1, 0.5, 2e-3); None for anything else.

    Python would also read 1_5 and digits of other scripts; here those are not numbers.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _DECIMAL.fullmatch(value.strip()):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def is_infinite(value: Any) -> bool:
    """Return whether a cell is an infinite number or one beyond float64, also spelled out, such as inf and 1e999."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return math.isinf(float(value))
    except OverflowError:
        return True
    except ValueError:
        return False


def are_nli_labels(labels: Collection[str]) -> bool:
    """Return whether all `labels` but `-` are labels of natural language inference, so that `-` is a missing label."""
    others = {label.lower() for label in labels} - {DASH}
    return bool(others) and others <= NLI_LABELS


def parse_table_cell(cell: Any, place: str) -> Any:
    """Return a cell, parsed if it is a list or object in JSON.

    Raises `DataError` for a list or object in Python syntax, as pandas writes them to .csv.
    """
    if is_python_repr(cell):
        raise DataError(
            f"{place}: {cell[:40]!r} is a list or object in Python syntax, not in JSON. Save the table as .jsonl or "
            ".parquet, or write the cell with json.dumps."
        )
    return parse_json_cell(cell, place)


def parse_json_cell(cell: Any, place: str) -> Any:
    """Return a cell, parsed if it is a list or object in JSON; any other text unchanged."""
    if isinstance(cell, str) and cell[:1] + cell[-1:] in ("[]", "{}"):
        try:
            return json_value(cell, place)
        except RepeatedKeyError:
            raise
        except DataError:
            return cell
    return cell


def is_python_repr(cell: Any) -> bool:
    """Return whether a cell is a list or object as Python prints it: `['a']`, `{'text': array(['b'])}`."""
    return isinstance(cell, str) and cell[:1] + cell[-1:] in ("[]", "{}") and bool(_PYTHON_REPR.match(cell))
