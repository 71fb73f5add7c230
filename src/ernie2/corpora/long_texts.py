"""Split texts that are too long to be tokenised at once.

Tokenising needs about 80 bytes of memory per character: an unsplit text of 60 MB would need 5 GB.
"""

from __future__ import annotations

import re
import unicodedata

from ernie2.corpora.sentences import sentence_bounds
from ernie2.errors import DataError

LONGEST_TEXT = 4_000_000
"""Maximum characters of an unsplit text: about 400 MB of memory. Books are shorter."""
LONGEST_PART = 1_000_000
"""Maximum characters of a part of a longer text."""

_TAIL = 10_000  # characters before the end of a part that are searched for the end of a sentence
_SPACE = re.compile(r"\s+")


def part_bounds(text: str, language: str) -> list[tuple[int, int]]:
    """Return (start, end) of the parts of a text above `LONGEST_TEXT`, in characters; one part for any other.

    A part ends before a blank line, else between two sentences, else at white space, else anywhere except before a
    combining mark. Parts do not overlap; only white space is left out.
    """
    if len(text) <= LONGEST_TEXT:
        return [(0, len(text))]
    bounds, start = [], 0
    while start < len(text):
        end = _part_end(text, start, language)
        stop = start + len(text[start:end].rstrip())
        if stop > start:
            bounds.append((start, stop))
        start = gap.end() if (gap := _SPACE.match(text, end)) else end
    return bounds


def check_length(text: str, name: str, place: str) -> None:
    """Raise `DataError` for a text above `LONGEST_TEXT` in labelled data, which cannot be split."""
    if len(text) > LONGEST_TEXT:
        raise DataError(
            f"{place}: the text in {name!r} has {len(text):,} characters; the maximum is {LONGEST_TEXT:,}. Shorten it, "
            "or remove the row."
        )


def _part_end(text: str, start: int, language: str) -> int:
    limit = start + LONGEST_PART
    if limit >= len(text):
        return len(text)
    if (blank := text.rfind("\n\n", start + 1, limit)) > 0:
        return blank
    tail = max(start, limit - _TAIL)
    bounds = sentence_bounds(text[tail:limit], language)
    if len(bounds) > 1:
        return tail + bounds[-1][0]
    spaces = [space.start() for space in _SPACE.finditer(text, tail, limit)]
    if spaces and spaces[-1] > start:
        return spaces[-1]
    while limit > tail + 1 and unicodedata.category(text[limit]).startswith("M"):
        limit -= 1
    return limit
