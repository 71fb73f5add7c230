"""Parse CSV rows. A quoted cell may contain commas, line breaks and doubled quotes.

A stray quote at the start of a cell would turn the following rows into one cell. It is an error, reported with the line
where the quote opens, if the quote never closes, if text follows the closing quote, or if the lines in between look
like rows of the same table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ernie2.errors import DataError

_QUOTED = re.compile(r'((?:[^"]++|"")*+)"')  # up to the closing quote
_FEW = 1000
_ADVICE = "Double a quotation mark inside a quoted cell, or save the table as .tsv, where nothing is quoted."


def csv_rows(file: str, lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) of every row; `place` names the line where the row begins.

    In a table of one column a blank line is an empty cell; otherwise it is skipped. Raises `DataError`, with the line
    of the opening quote, if a quoted cell contains other rows.
    """
    numbered = enumerate(lines, 1)
    in_quotes = _RowsInQuotes()
    for number, line in numbered:
        if not line and len(in_quotes.values) != 1:
            continue
        plain = '"' not in line
        cells = line.split(",") if plain else _parse_quoted_row(file, number, line, numbered, in_quotes)
        in_quotes.add(cells, plain=plain)
        yield f"{file}, line {number}", cells
    in_quotes.check(file)


def _parse_quoted_row(
    file: str, number: int, line: str, following: Iterator[tuple[int, str]], in_quotes: _RowsInQuotes
) -> list[str]:
    """Return the cells of a row that begins in `line`; a quoted cell with line breaks continues in `following`."""
    cells: list[str] = []
    at = 0
    while True:
        if line.startswith('"', at):
            opened, parts, physical = number, [], [line]
            at += 1
            while not (match := _QUOTED.match(line, at)):
                parts.append(line[at:])
                number, line = next(following, (0, ""))
                if not number:
                    raise DataError(f"{file}, line {opened}: a quote is opened but never closed. {_ADVICE}")
                physical.append(line)
                at = 0
            cells.append("\n".join((*parts, match[1])).replace('""', '"'))
            at = match.end()
            if line[at : at + 1] not in ("", ","):
                closed = "" if number == opened else f" in line {number}"
                raise DataError(
                    f"{file}, line {opened}: a quote is opened here, but{closed} text follows its closing quote "
                    f"({line[at : at + 20]!r}). {_ADVICE}"
                )
            in_quotes.suspect(opened, physical)
        else:
            end = line.find(",", at)
            cells.append(line[at:] if end < 0 else line[at:end])
            at = len(line) if end < 0 else end
        if at >= len(line):
            return cells
        at += 1


@dataclass
class _RowsInQuotes:
    """Quoted cells over several lines that could each be a row: every line has as many cells as a row, and in some
    column only values that other rows have there, such as labels."""

    values: list[set[str] | None] = field(default_factory=list)
    suspects: list[tuple[int, list[list[str]]]] = field(default_factory=list)

    def add(self, cells: list[str], *, plain: bool) -> None:
        """Record the width of the first row and the cells of later unquoted rows; drop columns with many values."""
        if not self.values:
            self.values = [set() for _ in cells]
        elif plain and len(cells) == len(self.values):
            for index, (known, cell) in enumerate(zip(self.values, cells, strict=True)):
                if known is not None and cell:
                    known.add(cell)
                    if len(known) > _FEW:
                        self.values[index] = None

    def suspect(self, opened: int, physical: list[str]) -> None:
        """Record a quoted cell if each of its lines has as many cells as a row."""
        if len(physical) > 1 and len(self.values) > 1:
            rows = [line.split(",") for line in physical]
            if all(len(cells) == len(self.values) for cells in rows):
                self.suspects.append((opened, rows))

    def check(self, file: str) -> None:
        """Raise `DataError` for the first quoted cell that contains rows."""
        for opened, rows in self.suspects:
            for index, known in enumerate(self.values):
                if known and all(cells[index] in known for cells in rows):
                    raise DataError(
                        f"{file}, line {opened}: the quote opened here closes only in line "
                        f"{opened + len(rows) - 1}, and the lines in between look like separate rows. {_ADVICE}"
                    )
