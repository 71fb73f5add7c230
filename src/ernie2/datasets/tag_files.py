"""Read CoNLL files: a token and its tags per line, columns separated by tabs or spaces, an empty line per sentence.

`-DOCSTART-` lines, comments (`# …` before a sentence, unless it is a token with a tag) and a header line are skipped
and counted. Without a header, the token is in the first column and the tag in the last, unless columns are named by
number, starting at 1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from ernie2.corpora.cells import check_characters
from ernie2.errors import DataError
from ernie2.storage.files import text_lines
from ernie2.storage.tables import Row

_NAMES = (".conll", ".conllu", ".bio", ".iob")
TAG_FILES = tuple(f"{name}{packed}" for name in _NAMES for packed in ("", ".gz", ".zst"))
"""Extensions that are always CoNLL; in .txt and .tsv files the first lines decide."""

_AMBIGUOUS_FILES = tuple(f"{name}{packed}" for name in (".txt", ".tsv") for packed in ("", ".gz", ".zst"))
_DEFAULTS = ("text", "label")
"""Defaults of `--text` and `--label`."""
SNIFFED_LINES = 2_000
"""Number of lines used to detect the format."""
_DOCUMENT = "-DOCSTART-"
_SPACES = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BIESLUM](-\S+)?")
_NAME = re.compile(r"[A-Za-z_ ]+")
_TEXT = re.compile("[ \x02]")
_INDEX = re.compile(r"\d+([-.]\d+)?")
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")
_NAMED = re.compile(r"#\s*\S+\s*=\s")
"""Sentence metadata in CoNLL-U."""
_EITHER = "it may have one token per line with an empty line after each sentence, or one text per line."


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is neither a comment nor `-DOCSTART-`: number and cells, no cells if it is empty."""

    number: int
    cells: tuple[str, ...]


def is_tag_file(
    file: str,
    known: Collection[str] = (),
    *,
    lines: Iterable[str] | None = None,
    tagging: bool | None = None,
    characters: bool = False,
    rename: str = "rename it to .conll",
) -> bool:
    """Return whether `file`, or its `lines` if given, has one token and tag per line.

    The extension decides; for .txt, .tsv and `lines`, the first lines do. They need a constant number of columns,
    tokens without spaces, empty lines between sentences, and a last column of tags (O, B-…, or any of `known`).
    `tagging`: whether the task is tagging, None if unknown. `characters`: whether a token is one character. `rename`:
    advice in messages. Raises `DataError` if the format is ambiguous.
    """
    if lines is None:
        if file.lower().endswith(TAG_FILES):
            return True
        if tagging is False or not file.lower().endswith(_AMBIGUOUS_FILES):
            return False
        lines = text_lines(file)
    first_lines = list(_lines(islice(lines, SNIFFED_LINES), file, Counter()))
    rows = [line.cells for line in first_lines if line.cells]
    if len(rows) < 2 or len({len(cells) for cells in rows}) > 1 or any(_TEXT.search(cells[0]) for cells in rows):
        return False
    filled = [bool(line.cells) for line in first_lines]
    separated = (False, True) in zip(filled[filled.index(True) :], filled[filled.index(True) + 1 :], strict=False)
    if len(rows[0]) == 1:
        if separated and tagging and (not characters or all(len(cells[0]) == 1 for cells in rows)):
            raise DataError(
                f"{file}: {_EITHER} {rename[0].upper()}{rename[1:]} for the first, or remove the empty lines."
            )
        return False
    tags = [cells[-1] for cells in rows[1:]]
    tagged = all(_is_tag(tag, known) for tag in tags) and (bool(known) or any(tag != "O" for tag in tags))
    if separated and not tagged and (tagging is None or known):
        how = rename if known else f"use --head tagging or --head classification, or {rename}"
        raise DataError(
            f"{file}: {_EITHER} {how[0].upper()}{how[1:]} for the first, or remove the empty lines for the second."
        )
    if tagged and not separated and tagging is None and any("-" in tag for tag in tags):
        raise DataError(
            f"{file}: every line is one token and a tag, but no empty line separates sentences. Add one after "
            "each sentence, or use --head classification if every line is a text."
        )
    return (tagged or tagging is True) if separated else (tagged and tagging is True)


def read_tag_file(
    file: str,
    text: str,
    label: str | None,
    known: Collection[str] = (),
    *,
    lenient: bool = False,
    content: Iterable[str] | None = None,
) -> tuple[list[Row], list[str]]:
    """Return (one row per sentence, notes) of a CoNLL file, or of its lines `content` if given.

    A row has a list of tokens in the cell `text`, and a list of tags in the cell `label` unless the file has one column
    or `label` is None. `text` and `label` name columns of the header, or columns by number. If there is no such column,
    the defaults "text" and "label", or all names if `lenient`, mean the first and the last column. `known`: tags
    besides O and B-…. Raises `DataError` with the line for a varying number of columns, an empty token or tag, and a
    missing column.
    """
    counts: Counter[str] = Counter()
    lines = _lines(text_lines(file) if content is None else content, file, counts)
    head = list(islice(lines, SNIFFED_LINES))
    first = next((line for line in head if line.cells), None)
    if first is None:
        raise DataError(f"{file}: the file has no tokens.")
    width, place = len(first.cells), f"{file}, line {first.number}"
    header = first.cells if _is_header(head, first, (text, label or "label"), known) else ()
    token = _column(text, 0, header, width, f"{place}: --text", lenient=lenient)
    tag = None
    if label is not None and width > 1:
        tag = _column(label, width - 1, header, width, f"{place}: --label", lenient=lenient)
    if tag == token:
        raise DataError(f"{place}: token and tag are both in column {token + 1}; name them with --text and --label.")
    indices = [line.cells[0] for line in head if line.cells and not (header and line is first)]
    numbered = width > 2 and all(_INDEX.fullmatch(index) for index in indices)
    if numbered and token == 0:
        raise DataError(
            f"{place}: the first column numbers the tokens, as in CoNLL-U. Name the columns by number, such as "
            "--text 2 --label 4."
        )
    rows: list[Row] = []
    sentence: list[_Line] = []
    for line in (*head, *lines, _Line(0, ())):
        if header and line is first:
            continue
        if line.cells and len(line.cells) != width:
            raise DataError(
                f"{file}, line {line.number}: {len(line.cells)} columns, but line {first.number} has {width}; "
                "all lines need the same number."
            )
        if not line.cells:
            if sentence:
                rows.append(_row(file, sentence, (text, label or ""), token, tag))
            sentence = []
        elif numbered and _NOT_A_WORD.fullmatch(line.cells[0]):
            counts["lines of CoNLL-U that are no words (1-2, 1.1) left out"] += 1
        else:
            sentence.append(line)
    notes = [f"{file}: {count:,} {change}" for change, count in counts.items()]
    return rows, [*([f"{place}: a header line ({', '.join(header)}), left out"] if header else []), *notes]


def _lines(lines: Iterable[str], file: str, counts: Counter[str]) -> Iterator[_Line]:
    """Yield lines without comments and document marks, which are counted."""
    lines = iter(lines)
    head = list(islice(lines, SNIFFED_LINES))
    certain = list(_token_lines(head))
    by_tab = "\t" in certain[0] if certain else any("\t" in line for line in head)
    width = len(_cells(certain[0], by_tab=by_tab)) if certain else 0
    seen = {part for line in certain for part in enumerate(_cells(line, by_tab=by_tab))}
    inside = False
    for number, line in enumerate(chain(head, lines), 1):
        if not line.strip(" \t"):
            inside = False
            yield _Line(number, ())
            continue
        cells = _cells(line, by_tab=by_tab)
        if cells[0].startswith(_DOCUMENT):
            counts[f"{_DOCUMENT} lines left out"] += 1
        elif line.startswith("#") and not inside and not _is_token(line, cells, width, seen):
            counts["comment lines left out"] += 1
        else:
            width, inside = width or len(cells), True
            seen.update(enumerate(cells))
            yield _Line(number, cells)


def _token_lines(head: Iterable[str]) -> Iterator[str]:
    """Yield lines that are certainly tokens: not empty, no comment, no document mark."""
    inside = False
    for line in head:
        filled = bool(line.strip(" \t"))
        inside = filled and (inside or not line.startswith("#"))
        if inside and not line.startswith(_DOCUMENT):
            yield line


def _cells(line: str, *, by_tab: bool) -> tuple[str, ...]:
    return tuple(line.split("\t") if by_tab else _SPACES.split(line.strip(" \t")))


def _is_token(line: str, cells: Sequence[str], width: int, seen: Collection[tuple[int, str]]) -> bool:
    """Return whether a line with # before a sentence is a token with tags, not a comment.

    It must have as many columns as other lines. If columns are separated by spaces, it also needs an entity tag, or a
    cell that another line has in the same column (`seen`).
    """
    if len(cells) != (width or len(cells)):
        return False
    if len(cells) == 1:
        return width == 1
    if "\t" in line or _TAG.fullmatch(cells[-1]):
        return True
    return not _NAMED.match(line) and any(part in seen for part in enumerate(cells) if part[0])


def _row(file: str, sentence: Sequence[_Line], names: tuple[str, str], token: int, tag: int | None) -> Row:
    first, last = sentence[0].number, sentence[-1].number
    for line in sentence:
        for column in (token, *([] if tag is None else [tag])):
            place = f"{file}, line {line.number}"
            check_characters(line.cells[column], place)
            if not line.cells[column].strip():
                raise DataError(f"{place}: column {column + 1} is empty; every token needs a tag.")
    cells = {names[0]: [line.cells[token] for line in sentence]}
    if tag is not None:
        cells[names[1]] = [line.cells[tag].strip() for line in sentence]
    return Row(f"{file}, line {first}" if first == last else f"{file}, lines {first} to {last}", cells)


def _is_header(head: Sequence[_Line], first: _Line, named: Sequence[str], known: Collection[str]) -> bool:
    """Return whether the first line names columns: it has a given name, or only its last cell is not a tag."""
    if any(name in first.cells for name in named if name not in _DEFAULTS and not name.isdecimal()):
        return True
    if all(name in first.cells for name in _DEFAULTS):
        return True
    tags = [line.cells[-1] for line in head if line.cells and line is not first]
    if not tags or not _NAME.fullmatch(first.cells[-1]) or _is_tag(first.cells[-1], known):
        return False
    return all(_is_tag(tag, known) for tag in tags)


def _column(name: str, default: int, header: Sequence[str], width: int, place: str, *, lenient: bool) -> int:
    if name in header:
        return header.index(name)
    if name in _DEFAULTS or (lenient and not name.isdecimal()):
        return default
    if name.isdecimal() and 1 <= int(name) <= width:
        return int(name) - 1
    columns = f"Columns: {', '.join(header)}" if header else f"There is no header line; use a number, 1 to {width}"
    raise DataError(f"{place} {name}: there is no such column. {columns}.")


def _is_tag(cell: str, known: Collection[str]) -> bool:
    return cell in known or bool(_TAG.fullmatch(cell))
