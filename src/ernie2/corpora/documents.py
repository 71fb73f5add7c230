"""Documents, and their readers for txt, json, jsonl, parquet and Arrow.

In txt a line is a paragraph and a blank line ends the document. Elsewhere a blank line inside the text separates
paragraphs. A text above `long_texts.LONGEST_TEXT` characters is split into documents of one group. Malformed files
raise errors with the location. Split texts and dropped documents and spans are counted.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from ernie2.config.data_settings import CorpusSettings
from ernie2.corpora.cells import check_characters, is_missing
from ernie2.corpora.long_texts import part_bounds
from ernie2.errors import DataError, did_you_mean
from ernie2.storage.files import decode_line, json_type, read_lines
from ernie2.storage.listing import file_format, file_stems, list_files
from ernie2.storage.tables import DOCUMENT_TABLE_FORMATS, TABLE_FORMATS, Row, column, read_rows

FORMATS = (".txt", ".txt.gz", ".txt.zst", *DOCUMENT_TABLE_FORMATS)
"""Extensions of document files; upper and lower case are equal."""
PAIR_FORMATS = tuple(extension for extension in TABLE_FORMATS if not extension.startswith(".txt"))
"""Extensions of tables of labelled pairs."""
SPAN_KINDS = ("word", "phrase", "entity", "user")
"""Kinds of knowledge spans; a span given without a kind is a 'user' span."""

_DELIMITED = re.compile(r"\.[ct]sv(\.gz|\.zst)?$")
_LONGEST_TXT_DOCUMENT = 1_000_000
_CUT_SPAN = "span across a cut of a long text"
_BLANK_LINE = re.compile(r"\n[^\S\n]+(?=\n)")
_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:[^\S\n]*\n[^\S\n]*\S(?:.*\S)?)*")


@dataclass(frozen=True, slots=True)
class Span:
    """A knowledge span: characters [start, end) of its document's text, and its kind, one of `SPAN_KINDS`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its id, group, knowledge spans and label.

    `text`: paragraphs separated by exactly one blank line, none empty, none with white space at either end. A single
    line feed inside a paragraph is white space. `spans`: offsets into `text`, in the order of the input. `group`:
    documents of a group stay on one side of the split into training and held-out documents. `label`: the class of a
    labelled pair, whose two texts are its two paragraphs; None for a text.
    """

    id: str
    group: str
    text: str
    spans: tuple[Span, ...] = ()
    label: str | None = None

    @property
    def paragraphs(self) -> list[tuple[int, int]]:
        """(start, end) of every paragraph, in characters of `text`."""
        bounds, start = [], 0
        for paragraph in self.text.split("\n\n"):
            bounds.append((start, start + len(paragraph)))
            start += len(paragraph) + 2
        return bounds


@dataclass
class Drops:
    """Counts of dropped items, by reason; `cut` counts texts that were split, which are not dropped."""

    counts: Counter[str] = field(default_factory=Counter)
    cut: int = 0

    def add(self, reason: str, count: int = 1) -> None:
        """Add `count` to `reason`."""
        self.counts[reason] += count

    def as_dict(self) -> dict[str, int]:
        """Return reason -> count, most frequent first, ties by name."""
        return dict(sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def __str__(self) -> str:
        """Return text such as 'empty text: 3, no label: 1'."""
        return ", ".join(f"{reason}: {number}" for reason, number in self.as_dict().items())


def hash64(text: str, person: bytes = b"") -> int:
    """Return a hash of 64 bits that is the same on every machine; `person` salts it (`hashlib.blake2b`)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8, person=person).digest(), "big")


def corpus_files(settings: CorpusSettings) -> list[str]:
    """Return the files of a corpus in a fixed order; `package:NAME` becomes the path of the shipped file.

    Raises `DataError` for a missing file, a directory in place of a file, a glob without matches, and an unknown
    extension.
    """
    if settings.pairs is not None:
        return list_files(settings.paths, PAIR_FORMATS)
    for path in settings.paths:
        if _DELIMITED.search(path.lower()):
            raise DataError(
                f"{path}: documents are not read from csv or tsv. For labelled pairs, set `pairs: {{a: …, b: …, "
                f"label: …}}`, the names of the columns, under the corpus. Known: {', '.join(FORMATS)}."
            )
    return list_files(settings.paths, FORMATS)


def read_documents(settings: CorpusSettings, drops: Drops, name: str = "") -> Iterator[Document]:
    """Yield the documents of a corpus, streamed in the order of `corpus_files`; `drops` counts dropped items.

    `name`: name of the corpus in its recipe, for messages; "" if there is no recipe.

    Raises `DataError`, naming file and line or row, for malformed input, and at the end if there was no document.
    """
    files = corpus_files(settings)
    count = 0
    for file, stem in file_stems(files, FORMATS).items():
        for document in _read_file(file, stem, settings, drops, name):
            count += 1
            yield document
    if count == 0:
        raise DataError(
            f"the corpus {', '.join(settings.paths)} has no documents ({str(drops) or 'its files are empty'}); "
            "add files with text."
        )


def _read_file(file: str, stem: str, settings: CorpusSettings, drops: Drops, name: str) -> Iterator[Document]:
    """Yield the documents of one file; one without an id is named `stem#number`, counted from 1 in the file."""
    if file_format(file, FORMATS).startswith(".txt"):
        yield from _read_txt(file, stem, settings.language, drops)
        return
    needed = {name for name in (settings.text, settings.id, settings.spans, settings.group) if name}
    for number, row in enumerate(read_rows(file, only=needed), start=1):
        document = _parse_document(row, f"{stem}#{number}", settings, drops, name)
        if document is not None:
            yield from _split_long(document, settings.language, drops)


def _split_long(document: Document, language: str, drops: Drops) -> Iterator[Document]:
    """Yield the document, or its parts if its text is too long; spans across a cut are dropped."""
    bounds = part_bounds(document.text, language)
    if len(bounds) == 1:
        yield document
        return
    drops.cut += 1
    span_count = 0
    for number, (start, end) in enumerate(bounds, start=1):
        spans = tuple(
            Span(span.start - start, span.end - start, span.kind)
            for span in document.spans
            if start <= span.start and span.end <= end
        )
        span_count += len(spans)
        name = document.id if number == 1 else f"{document.id}.{number}"
        yield Document(name, document.group, document.text[start:end], spans)
    if span_count < len(document.spans):
        drops.add(_CUT_SPAN, len(document.spans) - span_count)


def _read_txt(file: str, stem: str, language: str, drops: Drops) -> Iterator[Document]:
    """Yield the documents of a txt file: a paragraph per line, a blank line between documents.

    A document beyond a million characters is continued in a new one of the same group, so memory is bounded even
    without blank lines. A line that is too long for one document is split, too.
    """
    paragraphs: list[str] = []
    number, part, size = 1, 1, 0

    def build_document() -> Document:
        group = f"{stem}#{number}"
        return Document(group if part == 1 else f"{group}.{part}", group, "\n\n".join(paragraphs))

    for line_number, line in enumerate(read_lines(file), start=1):
        paragraph = decode_line(line, f"{file}, line {line_number}").strip()
        if not paragraph:
            if paragraphs:
                yield build_document()
                number, part, paragraphs, size = number + 1, 1, [], 0
            continue
        bounds = part_bounds(paragraph, language)
        drops.cut += len(bounds) > 1
        for start, end in bounds:
            if paragraphs and (size > _LONGEST_TXT_DOCUMENT or len(bounds) > 1):
                yield build_document()
                part, paragraphs, size = part + 1, [], 0
            paragraphs.append(paragraph[start:end])
            size += end - start
    if paragraphs:
        yield build_document()


def _parse_document(row: Row, default_id: str, settings: CorpusSettings, drops: Drops, name: str) -> Document | None:
    """Return a row as a document, or None if its text is empty, which is counted."""
    cells, where = row.cells, row.place
    text = cells[column(row, (settings.text,), column_advice(name, "text"))]
    if not isinstance(text, str):
        raise DataError(f"{where}: the field {settings.text!r} is {json_type(text)}, not a string.")
    identity = parse_id(cells.get(settings.id), settings.id, where) or default_id
    group = identity
    if settings.group is not None:
        grouped = cells[column(row, (settings.group,), column_advice(name, "group"))]
        group = parse_id(grouped, settings.group, where) or identity
    entries = cells.get(settings.spans)
    spans = _parse_spans(entries, len(text), where, settings.spans) if entries else ()
    normal = _normalise(text)
    if not normal:
        drops.add("empty text")
        return None
    if spans and normal != text:
        mapped = _map_spans(spans, text)
        if len(mapped) < len(spans):
            drops.add("span over white space", len(spans) - len(mapped))
        spans = mapped
    return Document(identity, group, normal, spans)


def column_advice(name: str, key: str) -> str:
    """Return advice for a missing column: set the recipe key of corpus `name`, or the option if `name` is empty."""
    return f"Set corpora.{name}.{key}." if name else f"Set --{key}."


def _normalise(text: str) -> str:
    """Return `text` with its paragraphs stripped and exactly one blank line between them."""
    if "\n\n" not in (text := _BLANK_LINE.sub("\n", text)):
        return text.strip()
    return "\n\n".join(stripped for paragraph in text.split("\n\n") if (stripped := paragraph.strip()))


def _map_spans(spans: Iterable[Span], text: str) -> tuple[Span, ...]:
    """Map `spans` of `text` to `_normalise(text)`, without those that covered only removed characters."""
    starts, ends, shifts = [], [], []
    length = 0
    for match in _PARAGRAPH.finditer(text):
        starts.append(match.start())
        ends.append(match.end())
        shifts.append(length - match.start())
        length += match.end() - match.start() + 2
    mapped = []
    for span in spans:
        first = bisect.bisect_right(ends, span.start)  # the paragraph of the start, or the next one
        last = bisect.bisect_left(starts, span.end) - 1  # the paragraph of the end, or the one before
        if first <= last:
            start = max(span.start, starts[first]) + shifts[first]
            end = min(span.end, ends[last]) + shifts[last]
            mapped.append(Span(start, end, span.kind))
    return tuple(mapped)


def _parse_spans(entries: Any, length: int, where: str, name: str) -> tuple[Span, ...]:
    """Validate spans of the input: [start, end], [start, end, kind], or an object with these keys."""
    form = f"{name!r} must be a list of [start, end, kind] in characters of the text"
    if not isinstance(entries, list):
        raise DataError(f"{where}: {form}, not {json_type(entries)}.")
    spans = []
    for entry in entries:
        parts = [entry.get("start"), entry.get("end"), entry.get("kind")] if isinstance(entry, dict) else entry
        if not isinstance(parts, list) or len(parts) not in (2, 3):
            raise DataError(f"{where}: {form}; {entry!r} is not one.")
        start, end, kind = (*parts, None)[:3]
        kind = "user" if kind is None else kind
        if type(start) is not int or type(end) is not int or not isinstance(kind, str):
            raise DataError(f"{where}: {form}; {entry!r} is not one.")
        if not 0 <= start < end <= length:
            raise DataError(
                f"{where}: the span {entry!r} is outside the text, which has {length} characters; "
                "0 <= start < end <= length must hold."
            )
        if kind not in SPAN_KINDS:
            raise DataError(
                f"{where}: the span {entry!r} has the kind {kind!r}.{did_you_mean(kind, SPAN_KINDS)} "
                f"Known: {', '.join(SPAN_KINDS)}."
            )
        spans.append(Span(start, end, kind))
    return tuple(spans)


def parse_id(value: Any, key: str, where: str) -> str:
    """Return an id or group as a string; '' if missing."""
    if is_missing(value):
        return ""
    if isinstance(value, str):
        check_characters(value, where)
        return value
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return str(int(value))  # pandas writes whole numbers as 1.0 in a column with missing values
    raise DataError(f"{where}: the field {key!r} is {json_type(value)}; it must be a string or a whole number.")
