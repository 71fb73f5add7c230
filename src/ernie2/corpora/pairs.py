"""Tables of labelled pairs → documents: the texts of a row become two paragraphs, its class the label.

A table has one of the formats in `storage.tables.TABLE_FORMATS`; the recipe names its columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from ernie2.config.data_settings import CorpusSettings, PairSettings
from ernie2.corpora.cells import DASH, are_nli_labels, parse_label, parse_line
from ernie2.corpora.documents import PAIR_FORMATS, Document, Drops, column_advice, corpus_files, parse_id
from ernie2.errors import DataError
from ernie2.storage.listing import file_stems
from ernie2.storage.tables import column, read_rows

MAX_LABELS = 10_000
"""A column with more distinct values is rejected as a column of classes."""
EMPTY_TEXT = "empty text"
NO_LABEL = "no label"
NO_AGREED_LABEL = f"label {DASH}: annotators did not agree"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def read_pairs(settings: CorpusSettings, drops: Drops, name: str = "") -> Iterator[Document]:
    """Yield the pairs of a corpus, streamed in the order of `corpus_files`; `drops` counts rows left out.

    The text of a document is both texts, white space collapsed to single spaces, with a blank line between: exactly two
    paragraphs. Its id is `stem#number` of its row. Its group is the cell of `settings.group`, or the first text if
    missing. `name`: name of the corpus in its recipe, for messages.

    Raises `DataError`, naming file and line or row, for malformed rows and for more than `MAX_LABELS` labels, and at
    the end if there was no pair.
    """
    columns = settings.pairs
    assert columns is not None, "a corpus of documents is read by read_documents"
    labels: set[str] = set()
    for where, pair in _drop_dashes(_read_table_pairs(settings, columns, drops, name), drops):
        labels.add(str(pair.label))
        if len(labels) > MAX_LABELS:
            raise DataError(
                f"{where}: the column {columns.label!r} has more than {MAX_LABELS:,} different labels so far "
                f"(here: {str(pair.label)[:60]!r}), so it is probably a column of text. Set pairs.label under the "
                "corpus to the column of classes."
            )
        yield pair
    if not labels:
        raise DataError(
            f"the corpus {', '.join(settings.paths)} has no labelled pairs "
            f"({str(drops) or 'its tables have no rows'}); add tables whose rows have two texts and a label."
        )


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Return the distinct `labels` in order: by number if all are integers, else by name.

    {"10", "9"} -> ["9", "10"] and {"b", "10", "9"} -> ["10", "9", "b"].
    """
    names = sorted(set(labels))
    return sorted(names, key=int) if all(map(_INTEGER.fullmatch, names)) else names


def _read_table_pairs(
    settings: CorpusSettings, columns: PairSettings, drops: Drops, name: str
) -> Iterator[tuple[str, Document]]:
    """Yield (place, pair) of every complete row; `drops` counts rows with an empty text or label."""
    named = {"pairs.a": columns.a, "pairs.b": columns.b, "pairs.label": columns.label}
    named |= {"group": settings.group} if settings.group else {}
    for file, stem in file_stems(corpus_files(settings), PAIR_FORMATS).items():
        for number, row in enumerate(read_rows(file, only=named.values()), start=1):
            a, b, label, *group = (
                row.cells[column(row, (one,), column_advice(name, key))] for key, one in named.items()
            )
            first, second = parse_line(a, columns.a, row.place), parse_line(b, columns.b, row.place)
            named_class = parse_label(label, columns.label, row.place)
            if not (first and second and named_class):
                drops.add(NO_LABEL if first and second else EMPTY_TEXT)
                continue
            own = parse_id(group[0], str(settings.group), row.place) if group else ""
            yield row.place, Document(f"{stem}#{number}", own or first, f"{first}\n\n{second}", label=named_class)


def _drop_dashes(pairs: Iterator[tuple[str, Document]], drops: Drops) -> Iterator[tuple[str, Document]]:
    """Yield `pairs` without those labelled `-` if the first other label is one of natural language inference."""
    dashed: list[tuple[str, Document]] = []
    for first in pairs:
        if first[1].label != DASH:
            break
        dashed.append(first)
    else:
        yield from dashed
        return
    is_nli = are_nli_labels([str(first[1].label)])
    for where, pair in chain(dashed, [first], pairs):
        if is_nli and pair.label == DASH:
            drops.add(NO_AGREED_LABEL)
        else:
            yield where, pair
