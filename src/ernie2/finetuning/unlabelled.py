"""Texts to be predicted: tables, plain lines, or what comes in through a pipe → examples without labels.

A plain line is a text, or several with tabs between them; a line that begins with { is an object with the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic_core import from_json

from ernie2.corpora.files import list_files, read_lines
from ernie2.datasets.examples import Example
from ernie2.datasets.labelled_files import SEPARATOR, as_list
from ernie2.datasets.own_data import rows_of
from ernie2.datasets.table_files import TABLES, Row, decoded
from ernie2.errors import ConfigError, DataError, did_you_mean
from ernie2.finetuning.tuned_folder import TunedFacts

_PLAIN = (".txt", ".txt.gz", ".txt.zst")


def examples_in(file: str, facts: TunedFacts, text: str | None = None) -> Iterator[Example]:
    """The examples of a file (.txt: a line each; else a table). `text` names other columns than those of training.

    Raises `DataError`, naming file and line, for what cannot be read and for columns that are not there.
    """
    names = columns_of(facts, text)
    for path in list_files([file], TABLES):
        if path.lower().endswith(_PLAIN):
            yield from examples_of((decoded(line, path) for line in read_lines(path)), facts, text, where=path)
        else:
            rows = enumerate(rows_of(path))
            yield from (_example(row, number, names, facts) for number, row in rows)


def examples_of(
    lines: Iterable[str], facts: TunedFacts, text: str | None = None, where: str = "standard input"
) -> Iterator[Example]:
    """An example a line, in their order. An empty line is an empty text; raises like `examples_in`."""
    names = columns_of(facts, text)
    for number, line in enumerate(lines):
        place, bare = f"{where}, line {number + 1}", line.rstrip("\r\n")
        if bare.startswith("{"):
            yield _example(Row(place, _object(bare, place)), number, names, facts)
            continue
        cells = bare.split("\t")
        if len(cells) != len(names):
            raise DataError(
                f"{place}: {len(cells)} texts, but the model reads {len(names)} ({', '.join(names)}); put tabs between "
                "them, or give objects in JSON."
            )
        yield _example(Row(place, dict(zip(names, cells, strict=True))), number, names, facts)


def columns_of(facts: TunedFacts, text: str | None) -> Sequence[str]:
    """The columns to read: those of training unless others are named. Raises `ConfigError` for too many or few."""
    if text is None:
        return facts.texts
    named = [part.strip() for part in text.split(",")]
    if len(named) != len(facts.texts) or not all(named):
        raise ConfigError(
            f"--text {text!r}: the model reads {len(facts.texts)} ({', '.join(facts.texts)}); name as many."
        )
    return named


def split_tokens(value: Any, facts: TunedFacts, place: str) -> tuple[str, ...]:
    """The tokens of a cell: a list as it is; text at \\x02 or spaces, or character by character where the model was
    trained so."""
    if facts.per_character and isinstance(value, str) and SEPARATOR not in value:
        return tuple(character for character in value if not character.isspace())
    return tuple(map(str, as_list(value, place)))


def _example(row: Row, number: int, names: Sequence[str], facts: TunedFacts) -> Example:
    identity = next((str(row.cells[name]) for name in ("id", "index", "idx") if name in row.cells), str(number))
    for name in names:
        if name not in row.cells:
            raise DataError(
                f"{row.place}: there is no column {name!r}.{did_you_mean(name, row.cells)} There is: "
                f"{', '.join(row.cells) or 'none'}. Name the right ones with --text."
            )
    if facts.head == "tagging":
        tokens = split_tokens(_value(row.cells[names[0]]), facts, row.place)
        return Example(identity, "".join(tokens) if facts.per_character else " ".join(tokens), tokens=tokens)
    texts = ["" if row.cells[name] is None else str(row.cells[name]) for name in names]
    return Example(identity, texts[0], texts[1] if len(texts) == 2 else None)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        cells = from_json(line)
    except ValueError as error:
        raise DataError(
            f"{place}: not valid JSON ({error}); a line that begins with {{ must be a whole object."
        ) from error
    if not isinstance(cells, dict):
        raise DataError(f"{place}: this line is not an object.")
    return cells


def _value(cell: Any) -> Any:
    """A cell of a table, or the list it spells in JSON."""
    if isinstance(cell, str) and cell[:1] == "[" and cell[-1:] == "]":
        try:
            return from_json(cell)
        except ValueError:
            return cell
    return cell
