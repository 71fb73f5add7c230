"""Strings of users and files made harmless where they are shown: on a terminal, and in Markdown.

Label names, tensor names, file names and descriptions may hold anything, escape sequences and markup included.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

_SHOWN_AS_IS = "\n\t"
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters without a shape of their own that turn the direction of what follows."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown may read as more than itself inside a line; an underscore inside a word is only itself."""
_BEGINNING = re.compile(r"^(#{0,5}|[-=]*|\d+)(#|[-+]|=|[.)])(?=\s|$)")
"""A heading, a list, an underline or a rule; its last character is escaped."""


def printable(text: str) -> str:
    """`text` with characters that steer a terminal spelled out: ESC becomes \\x1b. Line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(char if char in _SHOWN_AS_IS else _escape_char(char) for char in text)


def json_line(value: object) -> str:
    """`value` as JSON on one line, readable in any script, with characters that steer a terminal as \\u escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return (
        text if text.isprintable() else "".join(f"\\u{ord(char):04x}" if _is_control(char) else char for char in text)
    )


def escape_markdown(text: object) -> str:
    """`text` on one line that Markdown shows as it stands: no markup, HTML, table cell or heading comes of it."""
    line = " ".join(printable(str(text)).split())
    line = "".join(_ENTITIES.get(char, char) for char in _MARKS.sub(r"\\\g<0>", line))
    return _BEGINNING.sub(r"\1\\\2", line)


def markdown_table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table, every cell of which is shown as it stands."""
    head, *lines = ["| " + " | ".join(map(escape_markdown, cells)) + " |" for cells in (heads, *rows)]
    return [head, "|" + " --- |" * len(heads), *lines]


def _escape_char(char: str) -> str:
    if not _is_control(char):
        return char
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"


def _is_control(char: str) -> bool:
    return char in BIDI_CONTROLS or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
