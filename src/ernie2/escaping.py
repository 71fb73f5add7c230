"""Escaping of untrusted strings for terminals, JSON lines and Markdown.

Label names, tensor names, file names and descriptions may contain anything, including escape sequences and markup.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

_SHOWN_AS_IS = "\n\t"
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Invisible characters that change the writing direction."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
"""Characters with a meaning in Markdown inside a line; an underscore inside a word has none."""
_BEGINNING = re.compile(r"^(#{0,5}|[-=]*|\d+)(#|[-+]|=|[.)])(?=\s|$)")
"""A heading, a list, an underline or a rule; its last character is escaped."""


def printable(text: str) -> str:
    """Return `text` with terminal control characters escaped: ESC becomes \\x1b. Line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char in _SHOWN_AS_IS else _escape_char(char) for char in text)


def json_line(value: object) -> str:
    """Return `value` as one line of JSON. Non-ASCII text stays readable; control characters become \\u escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return (
        text if text.isprintable() else "".join(f"\\u{ord(char):04x}" if _is_control(char) else char for char in text)
    )


def escape_markdown(text: object) -> str:
    """Return `text` on one line, escaped so that Markdown renders it literally, also in a table cell."""
    line = " ".join(printable(str(text)).split())
    line = "".join(_ENTITIES.get(char, char) for char in _MARKS.sub(r"\\\g<0>", line))
    return _BEGINNING.sub(r"\1\\\2", line)


def markdown_table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table with escaped cells."""
    head, *lines = ["| " + " | ".join(map(escape_markdown, cells)) + " |" for cells in (heads, *rows)]
    return [head, "|" + " --- |" * len(heads), *lines]


def _escape_char(char: str) -> str:
    if not _is_control(char):
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def _is_control(char: str) -> bool:
    return char in BIDI_CONTROLS or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
