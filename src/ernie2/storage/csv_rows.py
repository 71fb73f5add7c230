"""Rows of CSV: cells between commas; a cell in quotes may hold commas, line breaks and doubled quotes.

A stray quote at the start of a cell would swallow the rows after it. It is refused, with the line where it opens: when
it never closes, when text follows the closing quote, and when what lies between looks like rows of the same table.
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
    """Yield (place, cells) of every row; the place is the line where the row begins.

    A blank line is an empty cell where the first row has one cell; else it is skipped.
    Raises `DataError` with the line where a quote opens that swallows other rows.
    """
    numbered = enumerate(lines, 1)
    swallowed = _Swallowed()
    for number, line in numbered:
        if not line and len(swallowed.values) != 1:
            continue
        plain = '"' not in line
        cells = line.split(",") if plain else _quoted(file, number, line, numbered, swallowed)
        swallowed.add(cells, plain=plain)
        yield f"{file}, line {number}", cells
    swallowed.check(file)


def _quoted(
    file: str, number: int, line: str, following: Iterator[tuple[int, str]], swallowed: _Swallowed
) -> list[str]:
    """The cells of a row that begins in `line` and goes on in `following` where a quoted cell holds line breaks."""
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
                    raise DataError(f"{file}, line {opened}: a quote is opened and never closed. {_ADVICE}")
                physical.append(line)
                at = 0
            cells.append("\n".join((*parts, match[1])).replace('""', '"'))
            at = match.end()
            if line[at : at + 1] not in ("", ","):
                closed = "" if number == opened else f" in line {number}"
                raise DataError(
                    f"{file}, line {opened}: a quote is opened, and{closed} text follows the one that closes it "
                    f"({line[at : at + 20]!r}). {_ADVICE}"
                )
            swallowed.suspect(opened, physical)
        else:
            end = line.find(",", at)
            cells.append(line[at:] if end < 0 else line[at:end])
            at = len(line) if end < 0 else end
        if at >= len(line):
            return cells
        at += 1


@dataclass
class _Swallowed:
    """Quoted cells over several lines each of which could be a row: as many cells as other rows, and in one column
    only values that other rows have there, as labels are."""

    values: list[set[str] | None] = field(default_factory=list)
    suspects: list[tuple[int, list[list[str]]]] = field(default_factory=list)

    def add(self, cells: list[str], *, plain: bool) -> None:
        """Take the width of the first row, and the cells of others without quotes; columns of many values are given
        up."""
        if not self.values:
            self.values = [set() for _ in cells]
        elif plain and len(cells) == len(self.values):
            for index, (known, cell) in enumerate(zip(self.values, cells, strict=True)):
                if known is not None and cell:
                    known.add(cell)
                    if len(known) > _FEW:
                        self.values[index] = None

    def suspect(self, opened: int, physical: list[str]) -> None:
        """Remember a quoted cell whose lines all have as many commas as a row."""
        if len(physical) > 1 and len(self.values) > 1:
            rows = [line.split(",") for line in physical]
            if all(len(cells) == len(self.values) for cells in rows):
                self.suspects.append((opened, rows))

    def check(self, file: str) -> None:
        """Raise `DataError` for the first quoted cell that holds rows."""
        for opened, rows in self.suspects:
            for index, known in enumerate(self.values):
                if known and all(cells[index] in known for cells in rows):
                    raise DataError(
                        f"{file}, line {opened}: the quote that is opened here closes only in line "
                        f"{opened + len(rows) - 1}, and the lines between look like rows of their own. {_ADVICE}"
                    )
