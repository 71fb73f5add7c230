"""Texts to be predicted: tables, plain lines, or what comes in through a pipe → examples without labels.

A plain line is a text, or several with tabs between them; a line that begins with { is an object with the columns.
Where the first line names the columns, those after it are read by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase, RawIOBase, TextIOBase
from typing import Any

from ernie2.console import log_warning
from ernie2.corpora.cells import parse_table_cell, parse_text, parse_tokens, row_name
from ernie2.datasets.examples import Example
from ernie2.datasets.labelled_files import SEPARATOR, as_list
from ernie2.datasets.tag_files import TAG_FILES, is_tag_file, read_tag_file
from ernie2.datasets.user_data import rows_of
from ernie2.errors import ConfigError, DataError
from ernie2.finetuning.finetuned_model import FinetunedConfig
from ernie2.finetuning.inference.line_format import STDIN, InputLines, column_count_error, detect_format
from ernie2.storage.files import json_type, json_value, stream_lines, text_lines
from ernie2.storage.listing import list_files
from ernie2.storage.tables import TABLE_FORMATS, Row, column, named_rows, tsv_rows

_PLAIN = (".txt", ".txt.gz", ".txt.zst")


def examples_from_file(file: str, config: FinetunedConfig, text: str | None = None) -> Iterator[Example]:
    """The examples of a file (.txt: a line each; CoNLL: a sentence each; else a table).

    `text` names other columns than those of training. Raises `DataError`, naming file and line, for what cannot be read
    and for columns that are not there.
    """
    names = text_columns(config, text)
    for path in list_files([file], (*TABLE_FORMATS, *TAG_FILES)):
        tagging = config.head == "tagging"
        if is_tag_file(path, config.labels, tagging=tagging, characters=config.per_character):
            if not tagging:
                raise DataError(f"{path} holds a token a line, but the model does not tag. Give it texts.")
            rows = _conll_rows(path, names, config, lenient=text is None)
        elif path.lower().endswith(_PLAIN):
            rows = _line_rows(detect_format(text_lines(path), config, names, path), names, path)
        else:
            rows = rows_of(path)
        yield from _examples(rows, names, config)


def examples_from_stream(
    stream: BufferedIOBase | RawIOBase | TextIOBase, config: FinetunedConfig, text: str | None = None
) -> Iterator[Example]:
    """Read examples from an open stream such as standard input.

    The first lines decide the format: an example a line as in `examples_from_lines`, a table with a header
    line, or CoNLL. Raises like `examples_from_file`.
    """
    names = text_columns(config, text)
    lines = iter(stream) if isinstance(stream, TextIOBase) else text_lines(STDIN, stream_lines(stream))
    shown = detect_format(lines, config, names)
    if shown.is_conll:
        return _examples(_conll_rows(STDIN, names, config, lenient=text is None, lines=shown.lines), names, config)
    return _examples(_line_rows(shown, names, STDIN), names, config)


def examples_from_lines(lines: Iterable[str], config: FinetunedConfig, text: str | None = None) -> Iterator[Example]:
    """An example a line, in their order; none is taken for a header. An empty line is an empty text. Raises like
    `examples_from_file`."""
    names = text_columns(config, text)
    return _examples(_line_rows(InputLines(line.rstrip("\r\n") for line in lines), names, STDIN), names, config)


def _conll_rows(
    where: str, names: Sequence[str], config: FinetunedConfig, *, lenient: bool, lines: Iterator[str] | None = None
) -> Iterator[Row]:
    """The sentences of a CoNLL file, or of the lines of a stream."""
    rows, notes = read_tag_file(where, names[0], None, config.labels, lenient=lenient, content=lines)
    for note in notes:
        log_warning(f"note: {note}")
    return iter(rows)


def _line_rows(shown: InputLines, names: Sequence[str], where: str) -> Iterator[Row]:
    """A row a line: by the columns that a header line names, else by `names`."""
    if shown.has_header:
        yield from named_rows(tsv_rows(where, shown.lines))
        return
    for number, line in enumerate(shown.lines, 1):
        place, bare = f"{where}, line {number}", line.removeprefix("\ufeff") if number == 1 else line
        cells = bare.split("\t")
        if bare.lstrip().startswith("{"):
            yield Row(place, json_value(bare, f"{place}: a line that begins with {{ must be a whole object"))
        elif len(cells) != len(names):
            raise column_count_error(place, len(cells), names, where)
        else:
            yield Row(place, dict(zip(names, cells, strict=True)))


def text_columns(config: FinetunedConfig, text: str | None) -> Sequence[str]:
    """The columns to read: those of training unless others are named. Raises `ConfigError` for too many or few."""
    if text is None:
        return config.texts
    named = [part.strip() for part in text.split(",")]
    if len(named) != len(config.texts) or not all(named):
        raise ConfigError(
            f"--text {text!r}: the model reads {len(config.texts)} ({', '.join(config.texts)}); name as many."
        )
    return named


def split_tokens(value: Any, config: FinetunedConfig, place: str) -> tuple[str, ...]:
    """The tokens of a cell: a list as it is; text at \\x02 or spaces, or character by character where the model was
    trained so."""
    if config.per_character and isinstance(value, str) and SEPARATOR not in value:
        return tuple(character for character in value if not character.isspace())
    return parse_tokens(as_list(value, place), "text", place)


def _examples(rows: Iterable[Row], names: Sequence[str], config: FinetunedConfig) -> Iterator[Example]:
    return (_example(row, number, names, config) for number, row in enumerate(rows))


def _example(row: Row, number: int, names: Sequence[str], config: FinetunedConfig) -> Example:
    identity = row_name(row.cells, ("id", "index", "idx"), number)
    values = [row.cells[column(row, (name,), "Name the right ones with --text.")] for name in names]
    if config.head == "tagging":
        tokens = split_tokens(parse_table_cell(values[0], row.place), config, row.place)
        return Example(identity, "".join(tokens) if config.per_character else " ".join(tokens), tokens=tokens)
    for name, value in zip(names, values, strict=True):
        # an empty text is asked about, so that answers stay in step with lines
        if parse_text(value, name, row.place) is None and not isinstance(value, str):
            raise DataError(
                f"{row.place}: the text in {name!r} is {json_type(value)}; give a text, or take the row out."
            )
    return Example(identity, values[0], values[1] if len(values) == 2 else None)
