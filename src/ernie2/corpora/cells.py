"""Cells of labelled files → texts and labels, by the same rules for every kind of file; what was changed is counted.

Text: a string. Null, NaN and white space alone are no text; other values are refused.
Label: white space around it and runs of it inside do not count; 1.0, which pandas and JSON write for 1, is 1; true and
false are names. Null, NaN (also as a word) and "" are no label. `-` is none where the other labels are those of natural
language inference: SNLI and OCNLI write it where annotators did not agree.
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
"""How SNLI and OCNLI write that annotators did not agree."""
NLI_LABELS = frozenset({"entailment", "neutral", "contradiction", "not_entailment", "non-entailment"})
"""Labels of natural language inference, in lower case."""

WHITE_SPACE = "normalised white space in"
TRAILING_ZEROS = "removed .0, as in 1.0, from"

_INTEGRAL = re.compile(r"([+-]?[0-9]{1,18})\.0+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PYTHON_REPR = re.compile(r"\[('|array\(|(None|True|False)\b)|\[?\{'[^']*'\s*:")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_text(value: Any, name: str, place: str) -> str | None:
    """Return a text as it is; None where there is none (null, NaN, white space alone).

    Raises `DataError`, naming `place`, for a number, a list or an object, for half a surrogate pair, and for a text of
    more than `LONGEST_TEXT` characters.
    """
    if is_missing(value):
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: the text in {name!r} is {json_type(value)}, not a string.")
    check_characters(value, place)
    check_length(value, name, place)
    return value if value.strip() else None


def parse_line(value: Any, name: str, place: str) -> str:
    """Return a text with its white space collapsed to single spaces; '' where there is none. Raises as `parse_text`."""
    return " ".join((parse_text(value, name, place) or "").split())


def parse_tokens(values: Collection[Any], name: str, place: str) -> tuple[str, ...]:
    """Return a list of tokens as strings. Raises `DataError` for a token that is not one."""
    for value in values:
        if not isinstance(value, str):
            raise DataError(f"{place}: a token in {name!r} is {json_type(value)}, not a string.")
        check_characters(value, place)
    return tuple(values)


def check_characters(text: str, place: str) -> None:
    """Raise `DataError` for half a surrogate pair, which is not a character and cannot be encoded."""
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise DataError(
            f"{place}: the text holds \\u{ord(found[0]):04x} alone, half a character. Write both halves, or take it "
            "out."
        )


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, NaN or an empty string."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def is_unlabelled(value: Any) -> bool:
    """Whether a label's cell holds none: it is missing, white space, or NaN spelled out."""
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
        whole = _INTEGRAL.fullmatch(label)
        if changes is not None and label:
            changes.update([WHITE_SPACE] * (label != value) + [TRAILING_ZEROS] * bool(whole))
        label = whole[1] if whole else label
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
    """Return a line for users about each kind of change that was counted."""
    return [
        f"{file}: {what} {quantity(count, 'label')}"
        if what in (WHITE_SPACE, TRAILING_ZEROS)
        else f"{file}: {count:,} {what}"
        for what, count in changes.items()
    ]


def row_name(cells: Mapping[str, Any], columns: Sequence[str], number: int) -> str:
    """Return the name of a row by the first of `columns` that it has and fills, else its number."""
    value = next((cells[column] for column in columns if not is_missing(cells.get(column))), number)
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return f"{value}, a number with a fraction" if math.isfinite(value) else "infinite"
    return json_type(value)


def parse_number(value: Any) -> float | None:
    """Return the finite number that a cell is or spells in decimal, such as -1, 0.5 or 2e-3; None for anything else.

    What Python would read besides, such as 1_5 and digits of other scripts, is a name and no number.
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
    """Whether a cell is or spells an infinite number, or one too large to compute with, such as inf and 1e999."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return False
    try:
        return math.isinf(float(value))
    except OverflowError:
        return True
    except ValueError:
        return False


def are_nli_labels(labels: Collection[str]) -> bool:
    """Whether `-` among `labels` means that annotators did not agree: the others are those of inference."""
    others = {label.lower() for label in labels} - {DASH}
    return bool(others) and others <= NLI_LABELS


def parse_table_cell(cell: Any, place: str) -> Any:
    """Return a cell, or the list or object that it spells in JSON.

    Raises `DataError` for one in Python's spelling, as pandas writes lists and objects to .csv.
    """
    if is_python_repr(cell):
        raise DataError(
            f"{place}: {cell[:40]!r} is Python's spelling of a list or object, not JSON. Save the table as .jsonl or "
            ".parquet, or write the cell with json.dumps."
        )
    return parse_json_cell(cell, place)


def parse_json_cell(cell: Any, place: str) -> Any:
    """Return a cell, or the list or object that it spells in JSON; any other text stays as it is."""
    if isinstance(cell, str) and cell[:1] + cell[-1:] in ("[]", "{}"):
        try:
            return json_value(cell, place)
        except RepeatedKeyError:
            raise
        except DataError:
            return cell
    return cell


def is_python_repr(cell: Any) -> bool:
    """Whether a cell spells a list or object as Python prints it: `['a']`, `{'text': array(['b'])}`."""
    return isinstance(cell, str) and cell[:1] + cell[-1:] in ("[]", "{}") and bool(_PYTHON_REPR.match(cell))
