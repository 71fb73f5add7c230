"""Tables of labelled pairs → documents: the two texts of a row are the two paragraphs, its class is the label.

A table is .tsv, .jsonl (both also compressed) or .parquet; the recipe names its columns. In tsv nothing is quoted or
escaped, so a quotation mark is part of the text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ernie2.corpora.documents import Document, Drops, json_name, name_of, resolve
from ernie2.corpora.files import file_stems
from ernie2.corpora.rows import READ, read_table
from ernie2.errors import DataError
from ernie2.settings import CorpusSettings, PairSettings

MOST_LABELS = 10_000
"""A column with more different values than this holds no classes."""
EMPTY_TEXT = "empty text"
NO_LABEL = "no label"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def read_pairs(settings: CorpusSettings, drops: Drops) -> Iterator[Document]:
    """Every pair of a corpus of labelled pairs, streamed in the order of `resolve`; `drops` counts what is left out.

    A document's text is both texts, their white space collapsed to single spaces, with a blank line between, so it has
    exactly two paragraphs. Its id is `stem#number` of its row, its group the cell of `settings.group`, or the first
    text where there is none. Raises `DataError`, naming file and line or row, for what is not of the expected form and
    for more than `MOST_LABELS` labels, and at the end when there was no pair at all.
    """
    columns = settings.pairs
    assert columns is not None, "a corpus of documents is read by read_documents"
    named = [columns.a, columns.b, columns.label, *([settings.group] if settings.group else ())]
    labels: set[str] = set()
    for file, stem in file_stems(resolve(settings), READ).items():
        for number, (where, cells) in enumerate(read_table(file, named), start=1):
            pair = _pair(cells, f"{stem}#{number}", where, columns, settings.group, drops)
            if pair is None:
                continue
            labels.add(str(pair.label))
            if len(labels) > MOST_LABELS:
                raise DataError(
                    f"{where}: the column {columns.label!r} has more than {MOST_LABELS:,} different labels by now "
                    f"(here: {str(pair.label)[:60]!r}), so it is probably a column of text. Name the column of classes "
                    "under the corpus, as pairs.label."
                )
            yield pair
    if not labels:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in drops.as_dict().items())
        raise DataError(
            f"the corpus {', '.join(settings.paths)} holds no labelled pair ({reasons or 'its tables have no rows'}); "
            "give it tables whose rows have two texts and a label."
        )


def sort_labels(labels: Iterable[str]) -> list[str]:
    """The distinct names of `labels` in their one order: by number where all are integers, else by name.

    {"10", "9"} -> ["9", "10"] and {"b", "10", "9"} -> ["10", "9", "b"].
    """
    names = sorted(set(labels))
    return sorted(names, key=int) if all(map(_INTEGER.fullmatch, names)) else names


def _pair(
    cells: Sequence[Any], identity: str, where: str, columns: PairSettings, group: str | None, drops: Drops
) -> Document | None:
    """One row as a document, or None where a text or the label is empty, which is counted."""
    a, b = _text(cells[0], columns.a, where), _text(cells[1], columns.b, where)
    label = _label(cells[2], columns.label, where)
    if not (a and b and label):
        drops.add(EMPTY_TEXT if not (a and b) else NO_LABEL)
        return None
    named = name_of(cells[3], group, where) if group else ""
    return Document(identity, named or a, f"{a}\n\n{b}", label=label)


def _text(value: Any, column: str, where: str) -> str:
    """A text with single spaces; '' where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(value.split())
    raise DataError(f"{where}: the text {column!r} is {json_name(value)}, not a string.")


def _label(value: Any, column: str, where: str) -> str:
    """A class by its name; '' where there is none. Whole numbers that pandas or JSON write as 1.0 are 1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise DataError(
        f"{where}: the label {column!r} is {json_name(value)}; a label must be a string, a whole number, true or false."
    )
