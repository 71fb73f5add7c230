"""Detect the format of lines from standard input or a .txt file: plain texts, a table with a header, CoNLL or JSON.

Standard input has no file name, so the first lines decide. A note reports every format other than one text per line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from ernie2.console import log_warning
from ernie2.datasets.tag_files import SNIFFED_LINES, is_tag_file
from ernie2.errors import DataError
from ernie2.finetuning.finetuned_model import FinetunedConfig
from ernie2.storage.files import json_value

STDIN = "standard input"

_JSON_LIST = re.compile(r"\[\s*(\{.*)?")
_NESTED = re.compile(r'"(paragraphs|qas)"\s*:')
_ENTITY_TAG = re.compile(r"[ \t][BIESLUM]-\S+$")
_COLUMN = re.compile(r'"?[\w.-]+"?')
_LINES_SEARCHED = 200
"""Number of lines searched for keys of SQuAD's JSON, and for tags if the model does not tag."""


@dataclass(frozen=True)
class InputLines:
    """Lines without line ends.

    `has_header`: the first line names columns. `is_conll`: each line is a token and a tag.
    """

    lines: Iterator[str]
    has_header: bool = False
    is_conll: bool = False


def detect_format(
    lines: Iterator[str], config: FinetunedConfig, names: Sequence[str], input_name: str = STDIN
) -> InputLines:
    """Return `lines` with the format that the first ones show. `names`: columns that the model reads.

    Raises `DataError` for JSON other than one object per line, for .csv, for tags if the model does not tag, and for
    lines that could be CoNLL or texts.
    """
    lines = (line.rstrip("\r\n") for line in lines)
    first = next(lines, None)
    if first is None:
        return InputLines(iter(()))
    first = first.removeprefix("\ufeff")
    lines = chain([first], lines)
    if _JSON_LIST.fullmatch(first.strip()) or first.lstrip().startswith("{"):
        if not _is_row(first, names):
            head = list(islice(lines, _LINES_SEARCHED))
            lines = chain(head, lines)
            _check_json(head, input_name)
        return InputLines(lines)
    if input_name == STDIN:  # for files, examples_from_file has checked
        head = list(islice(lines, SNIFFED_LINES if config.head == "tagging" else _LINES_SEARCHED))
        lines = chain(head, lines)
        if _is_conll(head, config):
            log_warning(
                f"note: {input_name}: read as CoNLL, one token per line, with an empty line after each sentence"
            )
            return InputLines(lines, is_conll=True)
    cells = first.split("\t")
    if set(names) <= set(cells):
        action = "columns are read by these names" if len(cells) > 1 else "skipped"
        log_warning(f"note: {input_name}, line 1: header line ({', '.join(cells)}), {action}")
        return InputLines(lines, has_header=True)
    _check_csv(first, names, input_name)
    return InputLines(lines)


def column_count_error(place: str, count: int, names: Sequence[str], input_name: str) -> DataError:
    """Return the error for a line of `count` columns, without a header, if the model reads `names`."""
    problem = f"{place}: {count} {'text' if count == 1 else 'columns'}, but the model reads {len(names)}"
    problem += f" ({', '.join(names)})"
    if count < len(names):
        return DataError(f"{problem}. Separate them with tabs, or give JSON objects.")
    header = f"Add a header line that names {' and '.join(names)}"
    file = "pass the file (predict MODEL FILE.tsv)" if input_name == STDIN else "rename the file to .tsv"
    return DataError(f"{problem}. {header}, or {file}, or give one JSON object per line.")


def _is_conll(head: Sequence[str], config: FinetunedConfig) -> bool:
    """Return whether standard input is CoNLL. Raises `DataError` if that is ambiguous, or the model does not tag."""
    if config.head == "tagging":
        rename = "give it as a .conll file"
        each = config.per_character
        return is_tag_file(STDIN, config.labels, lines=head, tagging=True, characters=each, rename=rename)
    nonempty = [line for line in head if line.strip()]
    # lines such as "Plan B" and "Vitamin E" are texts
    could_be_conll = len(nonempty) < len(head) or any(_ENTITY_TAG.search(line) for line in nonempty)
    if could_be_conll and is_tag_file(STDIN, lines=nonempty, tagging=True):
        raise DataError(
            f"{STDIN} has a token and a tag on each line, but the model does not tag. Give it texts. If these are "
            "texts, pass them as a .txt file."
        )
    return False


def _is_row(line: str, names: Sequence[str]) -> bool:
    """Return whether a line is a JSON object with one of the columns."""
    try:
        value = json_value(line, STDIN)
    except DataError:
        return False
    return isinstance(value, dict) and any(name in value for name in names)


def _check_json(head: Sequence[str], input_name: str) -> None:
    """Raise `DataError` for JSON other than one object per line."""
    place = f"{input_name}, line 1"
    advice = "Pass the file (predict MODEL FILE.json)" if input_name == STDIN else "Rename the file to .json"
    if _NESTED.search("\n".join(head)):
        raise DataError(f"{place}: nested JSON as in SQuAD. {advice}, or give one object with question and context per "
                        "line.")  # fmt: skip
    if head[0].strip().startswith("["):
        raise DataError(f"{place}: a JSON list. {advice}, or give one object per line.")
    if head[0].strip() == "{":
        raise DataError(f"{place}: JSON over several lines. {advice}, or give one complete object per line.")


def _check_csv(first: str, names: Sequence[str], input_name: str) -> None:
    """Raise `DataError` if the first line is the header of a .csv."""
    for mark in ",;":
        parts = first.split(mark)
        if all(_COLUMN.fullmatch(part) for part in parts) and set(names) <= {part.strip('"') for part in parts}:
            advice = "pass the file (predict MODEL FILE.csv)" if input_name == STDIN else "rename the file to .csv"
            advice = ("use commas or tabs, and " if mark == ";" else "") + advice
            raise DataError(
                f"{input_name}, line 1: header line of a .csv file ({first}). To read it, {advice}, or separate the "
                "columns with tabs."
            )
