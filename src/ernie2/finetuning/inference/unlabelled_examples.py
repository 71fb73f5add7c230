"""Read texts for prediction from tables, lines and standard input.

A line is one text, or several separated by tabs; a line that begins with { is a JSON object with the columns. If the
first line names the columns, the others are read by these names.
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
    """Read the examples of a file: .txt, one per line; CoNLL, one per sentence; else a table, one per row.

    `text`: columns to read instead of those of training. Raises `DataError`, with file and line, for unreadable input
    and missing columns.
    """
    names = text_columns(config, text)
    for path in list_files([file], (*TABLE_FORMATS, *TAG_FILES)):
        tagging = config.head == "tagging"
        if is_tag_file(path, config.labels, tagging=tagging, characters=config.per_character):
            if not tagging:
                raise DataError(f"{path} has one token per line, but the model does not tag. Give it texts.")
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

    The first lines decide the format: one example per line as in `examples_from_lines`, a table with a header line, or
    CoNLL. Raises like `examples_from_file`.
    """
    names = text_columns(config, text)
    lines = iter(stream) if isinstance(stream, TextIOBase) else text_lines(STDIN, stream_lines(stream))
    source = detect_format(lines, config, names)
    if source.is_conll:
        return _examples(_conll_rows(STDIN, names, config, lenient=text is None, lines=source.lines), names, config)
    return _examples(_line_rows(source, names, STDIN), names, config)


def examples_from_lines(lines: Iterable[str], config: FinetunedConfig, text: str | None = None) -> Iterator[Example]:
    """Read one example per line, in order. No line is a header; an empty line is an empty text.

    Raises like `examples_from_file`.
    """
    names = text_columns(config, text)
    return _examples(_line_rows(InputLines(line.rstrip("\r\n") for line in lines), names, STDIN), names, config)


def _conll_rows(
    input_name: str, names: Sequence[str], config: FinetunedConfig, *, lenient: bool, lines: Iterator[str] | None = None
) -> Iterator[Row]:
    """Read the sentences of a CoNLL file or of `lines`."""
    rows, notes = read_tag_file(input_name, names[0], None, config.labels, lenient=lenient, content=lines)
    for note in notes:
        log_warning(f"note: {note}")
    return iter(rows)


def _line_rows(source: InputLines, names: Sequence[str], input_name: str) -> Iterator[Row]:
    """Yield one row per line, with the columns of the header line or else `names`."""
    if source.has_header:
        yield from named_rows(tsv_rows(input_name, source.lines))
        return
    for number, line in enumerate(source.lines, 1):
        place = f"{input_name}, line {number}"
        content = line.removeprefix("\ufeff") if number == 1 else line
        cells = content.split("\t")
        if content.lstrip().startswith("{"):
            yield Row(place, json_value(content, f"{place}: a line that begins with {{ must be a complete object"))
        elif len(cells) != len(names):
            raise column_count_error(place, len(cells), names, input_name)
        else:
            yield Row(place, dict(zip(names, cells, strict=True)))


def text_columns(config: FinetunedConfig, text: str | None) -> Sequence[str]:
    """Return the columns to read: `text`, or those of training. Raises `ConfigError` for the wrong number."""
    if text is None:
        return config.texts
    names = [part.strip() for part in text.split(",")]
    if len(names) != len(config.texts) or not all(names):
        raise ConfigError(
            f"--text {text!r}: the model reads {len(config.texts)} columns ({', '.join(config.texts)}). Name as many."
        )
    return names


def split_tokens(value: Any, config: FinetunedConfig, place: str) -> tuple[str, ...]:
    """Return the tokens of a cell: a list unchanged, text split at \\x02 or spaces.

    Without \\x02, a model trained on single characters splits text into characters.
    """
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
        # empty texts are predicted too, so that predictions match lines
        if parse_text(value, name, row.place) is None and not isinstance(value, str):
            raise DataError(f"{row.place}: the text in {name!r} is {json_type(value)}. Give a text, or remove the row.")
    return Example(identity, values[0], values[1] if len(values) == 2 else None)
