"""CoNLL files: a token and its tags a line, in columns separated by tabs or spaces, an empty line after each sentence.

`-DOCSTART-` lines, comments (`# …` before a sentence, unless it is a token with a tag) and a header line are left out
and counted. Without a header the token is in the first column and the tag in the last, unless columns are named by
number, from 1 on.
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
"""Extensions of files that are always read so; .txt and .tsv are where their lines look so."""

_AMBIGUOUS_FILES = tuple(f"{name}{packed}" for name in (".txt", ".tsv") for packed in ("", ".gz", ".zst"))
_DEFAULTS = ("text", "label")
"""What `--text` and `--label` are unless they are given."""
SNIFFED_LINES = 2_000
"""How many lines decide whether lines are tagged."""
_DOCUMENT = "-DOCSTART-"
_SPACES = re.compile(r"[ \t]+")
_TAG = re.compile(r"O|[BIESLUM](-\S+)?")
_NAME = re.compile(r"[A-Za-z_ ]+")
_TEXT = re.compile("[ \x02]")
_INDEX = re.compile(r"\d+([-.]\d+)?")
_NOT_A_WORD = re.compile(r"\d+[-.]\d+")
_NAMED = re.compile(r"#\s*\S+\s*=\s")
"""How CoNLL-U writes what is known of a sentence."""
_EITHER = "there may be a token a line, with an empty line after each sentence, or a text a line."


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is neither a comment nor `-DOCSTART-`: its number and its cells, none where it is empty."""

    number: int
    cells: tuple[str, ...]


def is_tag_file(
    file: str,
    known: Collection[str] = (),
    *,
    lines: Iterable[str] | None = None,
    tagging: bool | None = None,
    characters: bool = False,
    rename: str = "call it .conll",
) -> bool:
    """Return whether `file`, or `lines` of what messages call `file`, holds a token and a tag a line.

    A file does by its extension. Of .txt, .tsv and `lines` the first lines tell: as many columns everywhere, tokens
    without spaces, empty lines between sentences, and a last column of tags (O, B-…, or any of `known`). `tagging`:
    whether the task is, None where nobody said. `characters`: whether a token is one character. `rename`: how a user
    makes clear that it does. Raises `DataError` where it cannot be told.
    """
    if lines is None:
        if file.lower().endswith(TAG_FILES):
            return True
        if tagging is False or not file.lower().endswith(_AMBIGUOUS_FILES):
            return False
        lines = text_lines(file)
    shown = list(_lines(islice(lines, SNIFFED_LINES), file, Counter()))
    rows = [line.cells for line in shown if line.cells]
    if len(rows) < 2 or len({len(cells) for cells in rows}) > 1 or any(_TEXT.search(cells[0]) for cells in rows):
        return False
    filled = [bool(line.cells) for line in shown]
    parted = (False, True) in zip(filled[filled.index(True) :], filled[filled.index(True) + 1 :], strict=False)
    if len(rows[0]) == 1:
        if parted and tagging and (not characters or all(len(cells[0]) == 1 for cells in rows)):
            raise DataError(
                f"{file}: {_EITHER} {rename[0].upper()}{rename[1:]} for the first, or take the empty lines out."
            )
        return False
    tags = [cells[-1] for cells in rows[1:]]
    tagged = all(_is_tag(tag, known) for tag in tags) and (bool(known) or any(tag != "O" for tag in tags))
    if parted and not tagged and (tagging is None or known):
        how = rename if known else f"say --head tagging or --head classification, or {rename}"
        raise DataError(
            f"{file}: {_EITHER} {how[0].upper()}{how[1:]} for the first, or take the empty lines out for the second."
        )
    if tagged and not parted and tagging is None and any("-" in tag for tag in tags):
        raise DataError(
            f"{file}: every line is one token and a tag, but no empty line parts sentences. Put one after each "
            "sentence, or use --head classification if every line is a text."
        )
    return (tagged or tagging is True) if parted else (tagged and tagging is True)


def read_tag_file(
    file: str,
    text: str,
    label: str | None,
    known: Collection[str] = (),
    *,
    lenient: bool = False,
    content: Iterable[str] | None = None,
) -> tuple[list[Row], list[str]]:
    """Return (a row a sentence, notes) of a CoNLL file, or of the lines `content` that `file` names in messages.

    The cells of a row are a list of tokens under `text` and a list of tags under `label`; a file of one column holds no
    tags, and without a `label` none are read. `text` and `label` name columns of the header, or columns by number; what
    is "text" and "label", and every name where `lenient`, means the first and the last where there is no such column.
    `known`: tags besides O and B-…. Raises `DataError`, naming the line, for a line of more or fewer columns than
    others, an empty token or tag, and a column that is not there.
    """
    counts: Counter[str] = Counter()
    lines = _lines(text_lines(file) if content is None else content, file, counts)
    head = list(islice(lines, SNIFFED_LINES))
    first = next((line for line in head if line.cells), None)
    if first is None:
        raise DataError(f"{file}: there is no token in it.")
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
                f"{file}, line {line.number}: {len(line.cells)} columns, but there are {width} in line {first.number}; "
                "every line needs as many."
            )
        if not line.cells:
            if sentence:
                rows.append(_row(file, sentence, (text, label or ""), token, tag))
            sentence = []
        elif numbered and _NOT_A_WORD.fullmatch(line.cells[0]):
            counts["lines of CoNLL-U that are no words (1-2, 1.1) left out"] += 1
        else:
            sentence.append(line)
    notes = [f"{file}: {count:,} {what}" for what, count in counts.items()]
    return rows, [*([f"{place}: a header line ({', '.join(header)}), left out"] if header else []), *notes]


def _lines(lines: Iterable[str], file: str, counts: Counter[str]) -> Iterator[_Line]:
    """The lines that are neither comments nor document marks, which are counted."""
    lines = iter(lines)
    head = list(islice(lines, SNIFFED_LINES))
    plain = list(_token_lines(head))
    by_tab = "\t" in plain[0] if plain else any("\t" in line for line in head)
    width = len(_cells(plain[0], by_tab=by_tab)) if plain else 0
    seen = {part for line in plain for part in enumerate(_cells(line, by_tab=by_tab))}
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
    """The lines that neither are empty nor can be a comment or a document mark."""
    inside = False
    for line in head:
        filled = bool(line.strip(" \t"))
        inside = filled and (inside or not line.startswith("#"))
        if inside and not line.startswith(_DOCUMENT):
            yield line


def _cells(line: str, *, by_tab: bool) -> tuple[str, ...]:
    return tuple(line.split("\t") if by_tab else _SPACES.split(line.strip(" \t")))


def _is_token(line: str, cells: Sequence[str], width: int, seen: Collection[tuple[int, str]]) -> bool:
    """Whether a line before a sentence that begins with # is a token and its tags, not a comment.

    It has as many columns as other lines and, where these are parted by spaces, a tag: one of entities, or a cell that
    is `seen` in its column on another line.
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
    """Whether the first line names columns: it holds a name that was given, or its last cell alone is not a tag."""
    if any(name in first.cells for name in named if name not in _DEFAULTS and not name.isdecimal()):
        return True
    if all(name in first.cells for name in _DEFAULTS):
        return True
    tags = [line.cells[-1] for line in head if line.cells and line is not first]
    if not tags or not _NAME.fullmatch(first.cells[-1]) or _is_tag(first.cells[-1], known):
        return False
    return all(_is_tag(tag, known) for tag in tags)


def _column(named: str, usual: int, header: Sequence[str], width: int, what: str, *, lenient: bool) -> int:
    if named in header:
        return header.index(named)
    if named in _DEFAULTS or (lenient and not named.isdecimal()):
        return usual
    if named.isdecimal() and 1 <= int(named) <= width:
        return int(named) - 1
    there = f"There is: {', '.join(header)}" if header else f"Without a header line name one by number, 1 to {width}"
    raise DataError(f"{what} {named}: there is no such column. {there}.")


def _is_tag(cell: str, known: Collection[str]) -> bool:
    return cell in known or bool(_TAG.fullmatch(cell))
