"""Lines that come through a pipe or from a .txt: plain texts, a table with its header, CoNLL, or JSON.

A pipe has no file name that says which, so the first lines do. What is read otherwise than a text a line is said.
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
"""How many lines are searched for the keys of SQuAD's JSON, and for tags where the model does not tag."""


@dataclass(frozen=True)
class InputLines:
    """Lines without line ends.

    `has_header`: the first line names columns. `is_conll`: each line is a token and a tag.
    """

    lines: Iterator[str]
    has_header: bool = False
    is_conll: bool = False


def detect_format(
    lines: Iterator[str], config: FinetunedConfig, names: Sequence[str], where: str = STDIN
) -> InputLines:
    """Return `lines` as what their first ones show them to be; `names` are the columns that the model reads.

    Raises `DataError` for JSON that is not an object a line, for .csv, for tags where the model does not tag, and for
    lines that may be CoNLL or texts.
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
            _check_json(head, where)
        return InputLines(lines)
    if where == STDIN:  # of a file its reader has decided
        head = list(islice(lines, SNIFFED_LINES if config.head == "tagging" else _LINES_SEARCHED))
        lines = chain(head, lines)
        if _is_conll(head, config):
            log_warning(f"note: {where}: read as CoNLL, a token a line, with an empty line after each sentence")
            return InputLines(lines, is_conll=True)
    cells = first.split("\t")
    if set(names) <= set(cells):
        what = "read by those names" if len(cells) > 1 else "left out"
        log_warning(f"note: {where}, line 1: a header line ({', '.join(cells)}), {what}")
        return InputLines(lines, has_header=True)
    _check_csv(first, names, where)
    return InputLines(lines)


def column_count_error(place: str, count: int, names: Sequence[str], where: str) -> DataError:
    """Return the error for a line of `count` columns where the model reads `names` and there is no header."""
    told = f"{place}: {count} {'text' if count == 1 else 'columns'}, but the model reads {len(names)}"
    told += f" ({', '.join(names)})"
    if count < len(names):
        return DataError(f"{told}; put tabs between them, or give objects in JSON.")
    header = f"begin with a header line that names {' and '.join(names)}"
    file = "name the file (predict MODEL FILE.tsv)" if where == STDIN else "call the file .tsv"
    return DataError(f"{told}; {header}, or {file}, or give an object in JSON a line.")


def _is_conll(head: Sequence[str], config: FinetunedConfig) -> bool:
    """Whether standard input begins as CoNLL. Raises `DataError` where it cannot be told, or the model does not tag."""
    if config.head == "tagging":
        rename = "give it as a .conll file"
        each = config.per_character
        return is_tag_file(STDIN, config.labels, lines=head, tagging=True, characters=each, rename=rename)
    filled = [line for line in head if line.strip()]
    sure = len(filled) < len(head) or any(_ENTITY_TAG.search(line) for line in filled)  # not "Plan B", "Vitamin E"
    if sure and is_tag_file(STDIN, lines=filled, tagging=True):
        raise DataError(
            f"{STDIN} holds a token and a tag a line, but the model does not tag. Give it texts; lines that only look "
            "so can come from a .txt file."
        )
    return False


def _is_row(line: str, names: Sequence[str]) -> bool:
    """Whether a line is an object in JSON with one of the columns."""
    try:
        value = json_value(line, STDIN)
    except DataError:
        return False
    return isinstance(value, dict) and any(name in value for name in names)


def _check_json(head: Sequence[str], where: str) -> None:
    """Raises `DataError` for JSON in another form than an object a line."""
    place = f"{where}, line 1"
    now = "Name the file (predict MODEL FILE.json)" if where == STDIN else "Call the file .json"
    if _NESTED.search("\n".join(head)):
        raise DataError(f"{place}: nested JSON of SQuAD's form. {now}, or give an object with question and context a "
                        "line.")  # fmt: skip
    if head[0].strip().startswith("["):
        raise DataError(f"{place}: a list in JSON. {now}, or give an object a line.")
    if head[0].strip() == "{":
        raise DataError(f"{place}: JSON over several lines. {now}, or give a whole object a line.")


def _check_csv(first: str, names: Sequence[str], where: str) -> None:
    """Raises `DataError` where the first line names the columns as a .csv does."""
    for mark in ",;":
        parts = first.split(mark)
        if all(_COLUMN.fullmatch(part) for part in parts) and set(names) <= {part.strip('"') for part in parts}:
            now = "name the file (predict MODEL FILE.csv)" if where == STDIN else "call the file .csv"
            now = "use commas or tabs, and " + now if mark == ";" else now
            raise DataError(f"{where}, line 1: the header line of a .csv file ({first}); {now}, or put tabs between.")
