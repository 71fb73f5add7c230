"""Documents, and the readers that make them from txt, jsonl and parquet.

In txt a line is a paragraph and a blank line ends the document; in jsonl and parquet a blank line inside the text
separates paragraphs. What is wrong with a file is an error that says where; what is merely of no use is dropped and
counted.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import from_json

from ernie2.corpora.files import FORMATS, file_format, file_stems, list_files, read_lines
from ernie2.corpora.rows import READ, parquet_rows
from ernie2.errors import DataError, did_you_mean
from ernie2.settings import CorpusSettings

SPAN_KINDS = ("word", "phrase", "entity", "user")
"""Kinds of knowledge spans; a span given without a kind is a 'user' span."""

_LONGEST_TXT_DOCUMENT = 1_000_000
_BLANK_LINE = re.compile(r"\n[^\S\n]+(?=\n)")
_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:[^\S\n]*\n[^\S\n]*\S(?:.*\S)?)*")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of knowledge: characters [start, end) of its document's text, and its kind, one of `SPAN_KINDS`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text with what is known about it.

    `text` holds its paragraphs, none empty and none with white space at an end, separated by exactly one blank line.
    A single line feed inside a paragraph is white space. `spans` point into this `text`, in the order they were given.
    `group` keeps documents together on one side of the train / held-out split; `title` may be empty. `label` is the
    class of a labelled pair, whose two texts are its two paragraphs; None for a text.
    """

    id: str
    group: str
    text: str
    title: str = ""
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
    """How much was left out, by named reason."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, count: int = 1) -> None:
        """Counts `count` more for `reason`."""
        self.counts[reason] += count

    def merge(self, other: Drops) -> None:
        """Adds the counts of `other`, such as those of another worker."""
        self.counts.update(other.counts)

    def as_dict(self) -> dict[str, int]:
        """reason -> count, the most frequent first, equal ones by name."""
        return dict(sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0])))


def resolve(settings: CorpusSettings) -> list[str]:
    """The files of a corpus in a fixed order; `package:NAME` becomes the path of the shipped file.

    Raises `DataError` for a missing file, a directory where a file belongs, a glob without matches, and an extension
    that is not known.
    """
    return list_files(settings.paths, FORMATS if settings.pairs is None else READ)


def read_documents(settings: CorpusSettings, drops: Drops) -> Iterator[Document]:
    """Every document of a corpus of documents, streamed in the order of `resolve`; `drops` counts what is left out.

    Raises `DataError`, naming file and line or row, for what cannot be read as text or is not of the expected form, and
    at the end when there was no document at all.
    """
    files = resolve(settings)
    count = 0
    for file, stem in file_stems(files).items():
        for document in read_file(file, stem, settings, drops):
            count += 1
            yield document
    if count == 0:
        reasons = ", ".join(f"{reason}: {number}" for reason, number in drops.as_dict().items())
        raise DataError(
            f"the corpus {', '.join(settings.paths)} holds no document ({reasons or 'its files are empty'}); "
            "give it files with text."
        )


def read_file(file: str, stem: str, settings: CorpusSettings, drops: Drops) -> Iterator[Document]:
    """The documents of one file; one without an id of its own is called `stem#number`, counted from 1 in the file."""
    extension = file_format(file)
    if extension.startswith(".txt"):
        yield from _read_txt(file, stem)
        return
    rows = (
        parquet_rows(file, partial(_parquet_columns, file, settings)) if extension == ".parquet" else _jsonl_rows(file)
    )
    for number, (where, row) in enumerate(rows, start=1):
        document = _document(row, f"{stem}#{number}", where, settings, drops)
        if document is not None:
            yield document


def _read_txt(file: str, stem: str) -> Iterator[Document]:
    """Paragraph a line, blank line between documents.

    A document that grows beyond a million characters goes on in a new one of the same group: a file without any blank
    line is still read in bounded memory.
    """
    paragraphs: list[str] = []
    number, part, size = 1, 1, 0

    def finished() -> Document:
        group = f"{stem}#{number}"
        return Document(group if part == 1 else f"{group}.{part}", group, "\n\n".join(paragraphs))

    for line_number, line in enumerate(read_lines(file), start=1):
        try:
            paragraph = line.decode().strip()
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{file}, line {line_number}", error) from error
        if not paragraph:
            if paragraphs:
                yield finished()
                number, part, paragraphs, size = number + 1, 1, [], 0
            continue
        if size > _LONGEST_TXT_DOCUMENT:
            yield finished()
            part, paragraphs, size = part + 1, [], 0
        paragraphs.append(paragraph)
        size += len(paragraph)
    if paragraphs:
        yield finished()


def _jsonl_rows(file: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place for messages, object) of every line that is not blank."""
    for number, line in enumerate(read_lines(file), start=1):
        try:
            row = from_json(line, cache_strings="keys")
        except ValueError as error:
            if not line.strip():
                continue
            raise _not_json(f"{file}, line {number}", line, error) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{file}, line {number}: this line is {json_name(row)}, not an object; "
                'every line must be an object such as {"text": "..."}.'
            )
        yield f"{file}, line {number}", row


def _parquet_columns(file: str, settings: CorpusSettings, names: Sequence[str]) -> list[str]:
    """The columns that matter of those there are; raises `DataError` where one is missing that must be there."""
    for needed in filter(None, (settings.text, settings.group)):
        if needed not in names:
            raise _no_field(file, "column", needed, names)
    wanted = {settings.text, settings.id, settings.spans, settings.group, "title"}
    return [name for name in names if name in wanted]


def _document(
    row: Mapping[str, Any], default_id: str, where: str, settings: CorpusSettings, drops: Drops
) -> Document | None:
    """One row as a document, or None where its text is empty, which is counted."""
    if settings.text not in row:
        raise _no_field(where, "field", settings.text, row)
    text = row[settings.text]
    if not isinstance(text, str):
        raise DataError(f"{where}: the field {settings.text!r} is {json_name(text)}, not a string.")
    identity = name_of(row.get(settings.id), settings.id, where) or default_id
    group = identity
    if settings.group is not None:
        if settings.group not in row:
            raise _no_field(where, "field", settings.group, row)
        group = name_of(row[settings.group], settings.group, where) or identity
    title = row.get("title")
    given = row.get(settings.spans)
    spans = _spans(given, len(text), where, settings.spans) if given else ()
    normal = _normal_text(text)
    if not normal:
        drops.add("empty text")
        return None
    if spans and normal != text:
        kept = _moved(spans, text)
        if len(kept) < len(spans):
            drops.add("span over white space", len(spans) - len(kept))
        spans = kept
    return Document(identity, group, normal, title if isinstance(title, str) else "", spans)


def _normal_text(text: str) -> str:
    """`text` with its paragraphs stripped and exactly one blank line between them."""
    if "\n\n" not in (text := _BLANK_LINE.sub("\n", text)):
        return text.strip()
    return "\n\n".join(stripped for paragraph in text.split("\n\n") if (stripped := paragraph.strip()))


def _moved(spans: Iterable[Span], text: str) -> tuple[Span, ...]:
    """`spans` of `text` as spans of its normal form; those that held only what was taken out are gone."""
    starts, ends, shifts = [], [], []
    length = 0
    for match in _PARAGRAPH.finditer(text):
        starts.append(match.start())
        ends.append(match.end())
        shifts.append(length - match.start())
        length += match.end() - match.start() + 2
    moved = []
    for span in spans:
        first = bisect.bisect_right(ends, span.start)  # the paragraph that holds the start, or the next one
        last = bisect.bisect_left(starts, span.end) - 1  # the paragraph that holds the end, or the one before
        if first <= last:
            start = max(span.start, starts[first]) + shifts[first]
            end = min(span.end, ends[last]) + shifts[last]
            moved.append(Span(start, end, span.kind))
    return tuple(moved)


def _spans(given: Any, length: int, where: str, name: str) -> tuple[Span, ...]:
    """Checks spans as they come: [start, end], [start, end, kind], or an object with these keys."""
    form = f"{name!r} must be a list of [start, end, kind] in characters of the text"
    if not isinstance(given, list):
        raise DataError(f"{where}: {form}, not {json_name(given)}.")
    spans = []
    for entry in given:
        parts = [entry.get("start"), entry.get("end"), entry.get("kind")] if isinstance(entry, dict) else entry
        if not isinstance(parts, list) or len(parts) not in (2, 3):
            raise DataError(f"{where}: {form}; {entry!r} is none of them.")
        start, end, kind = (*parts, None)[:3]
        kind = "user" if kind is None else kind
        if type(start) is not int or type(end) is not int or not isinstance(kind, str):
            raise DataError(f"{where}: {form}; {entry!r} is none of them.")
        if not 0 <= start < end <= length:
            raise DataError(
                f"{where}: the span {entry!r} is not inside the text, which has {length} characters; "
                "0 <= start < end <= length must hold."
            )
        if kind not in SPAN_KINDS:
            raise DataError(
                f"{where}: the span {entry!r} has the kind {kind!r}.{did_you_mean(kind, SPAN_KINDS)} "
                f"Known: {', '.join(SPAN_KINDS)}."
            )
        spans.append(Span(start, end, kind))
    return tuple(spans)


def name_of(value: Any, name: str, where: str) -> str:
    """An id or group as a string; '' where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    raise DataError(f"{where}: the field {name!r} is {json_name(value)}; it must be a string or a whole number.")


def _no_field(where: str, what: str, name: str, known: Iterable[str]) -> DataError:
    names = list(known)
    return DataError(
        f"{where}: there is no {what} {name!r}.{did_you_mean(name, names)} "
        f"It has: {', '.join(names) or 'none'}. The recipe says under the corpus which {what} is meant."
    )


def _not_utf8(where: str, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{where}, byte {error.start + 1}: not UTF-8 (0x{error.object[error.start]:02x}: {error.reason}); "
        "save the file as UTF-8."
    )


def _not_json(where: str, line: bytes, error: ValueError) -> DataError:
    try:
        line.decode()
    except UnicodeDecodeError as decoding:
        return _not_utf8(where, decoding)
    reason = re.sub(r" at line 1 column (\d+)$", r" at byte \1", str(error))
    if "EOF" in reason:
        return DataError(f"{where}: this line is cut short ({reason}); every line must be one whole JSON object.")
    if "hex escape" in reason:
        reason += "; an escape such as \\ud83d alone is half a character"
    return DataError(f"{where}: not valid JSON ({reason}).")


def json_name(value: Any) -> str:
    """What to call a value of the wrong type in a message: 'null', 'a number', 'an object'."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = {int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
