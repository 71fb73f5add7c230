"""Tables of labelled pairs → documents: the two texts of a row are the two paragraphs, its class is the label.

A table is one of `storage.tables.TABLE_FORMATS`; the recipe names its columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from ernie2.config.data_settings import CorpusSettings, PairSettings
from ernie2.corpora.cells import DASH, are_nli_labels, parse_label, parse_line
from ernie2.corpora.documents import PAIR_FORMATS, Document, Drops, column_advice, corpus_files, parse_name
from ernie2.errors import DataError
from ernie2.storage.listing import file_stems
from ernie2.storage.tables import column, read_rows

MAX_LABELS = 10_000
"""A column with more different values than this holds no classes."""
EMPTY_TEXT = "empty text"
NO_LABEL = "no label"
NO_AGREED_LABEL = f"label {DASH}: annotators did not agree"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def read_pairs(settings: CorpusSettings, drops: Drops, name: str = "") -> Iterator[Document]:
    """Every pair of a corpus of labelled pairs, streamed in the order of `resolve`; `drops` counts what is left out.

    A document's text is both texts, their white space collapsed to single spaces, with a blank line between, so it has
    exactly two paragraphs. Its id is `stem#number` of its row, its group the cell of `settings.group`, or the first
    text where there is none. `name`: the corpus in its recipe, for messages.

    Raises `DataError`, naming file and line or row, for what is not of the expected form and for more than
    `MAX_LABELS` labels, and at the end when there was no pair at all.
    """
    columns = settings.pairs
    assert columns is not None, "a corpus of documents is read by read_documents"
    labels: set[str] = set()
    for where, pair in _without_dashes(_pairs_of(settings, columns, drops, name), drops):
        labels.add(str(pair.label))
        if len(labels) > MAX_LABELS:
            raise DataError(
                f"{where}: the column {columns.label!r} has more than {MAX_LABELS:,} different labels by now "
                f"(here: {str(pair.label)[:60]!r}), so it is probably a column of text. Name the column of classes "
                "under the corpus, as pairs.label."
            )
        yield pair
    if not labels:
        raise DataError(
            f"the corpus {', '.join(settings.paths)} holds no labelled pair "
            f"({str(drops) or 'its tables have no rows'}); give it tables whose rows have two texts and a label."
        )


def sort_labels(labels: Iterable[str]) -> list[str]:
    """The distinct names of `labels` in their one order: by number where all are integers, else by name.

    {"10", "9"} -> ["9", "10"] and {"b", "10", "9"} -> ["10", "9", "b"].
    """
    names = sorted(set(labels))
    return sorted(names, key=int) if all(map(_INTEGER.fullmatch, names)) else names


def _pairs_of(
    settings: CorpusSettings, columns: PairSettings, drops: Drops, name: str
) -> Iterator[tuple[str, Document]]:
    """(place, pair) of every row that is one; `drops` counts the others, where a text or the label is empty."""
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
            own = parse_name(group[0], str(settings.group), row.place) if group else ""
            yield row.place, Document(f"{stem}#{number}", own or first, f"{first}\n\n{second}", label=named_class)


def _without_dashes(pairs: Iterator[tuple[str, Document]], drops: Drops) -> Iterator[tuple[str, Document]]:
    """`pairs` without those labelled `-`, where the first other label says that these are pairs of inference."""
    dashed: list[tuple[str, Document]] = []
    for first in pairs:
        if first[1].label != DASH:
            break
        dashed.append(first)
    else:
        yield from dashed
        return
    left_out = are_nli_labels([str(first[1].label)])
    for where, pair in chain(dashed, [first], pairs):
        if left_out and pair.label == DASH:
            drops.add(NO_AGREED_LABEL)
        else:
            yield where, pair
