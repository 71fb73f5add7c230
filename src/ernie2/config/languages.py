"""ISO 639 language codes: two letters if the language has such a code, else three; a script or region may follow."""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import resources

from ernie2.errors import ConfigError

_TABLE = (resources.files("ernie2.config") / "languages.tsv").read_text(encoding="utf-8")
"""One language per line: two letters (ISO 639-1), three letters (ISO 639-2), English name, and aliases."""
_ROWS = [line.split("\t") for line in _TABLE.splitlines()]
_CODES = frozenset(row[0] for row in _ROWS)
_ALIASES = {other.lower(): row[0] for row in _ROWS for other in row[1:]}
"""Names and other codes → the code to use."""
_FORM = re.compile(r"([A-Za-z]{2,3})((?:[-_][A-Za-z0-9]{2,8})*)")


def check_language(language: str) -> str:
    """Return the code `language` with its first part in lower case. Raises `ConfigError` naming the closest code.

    Two letters must be an ISO 639-1 code. Three letters are rejected only if the language has a two-letter code.
    """
    form = _FORM.fullmatch(language)
    code = form[1].lower() if form else language.strip().lower()
    if form and (code in _CODES or (len(code) == 3 and code not in _ALIASES)):
        return code + form[2]
    near = next((_ALIASES[part] for part in [code, *re.split(r"[-_ (),]+", code)] if part in _ALIASES), None)
    if near is None and 4 <= len(code) <= 40:
        near = next((_ALIASES[name] for name in get_close_matches(code, _ALIASES, n=1)), None)
    raise ConfigError(
        f"{language[:40]!r} is not an ISO 639 code; " + (f"use {near!r}." if near else "use one such as 'en' or 'zh'.")
    )
