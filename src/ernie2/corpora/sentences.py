"""Sentence boundaries of a paragraph, as character offsets.

The rules are those of `sentencex`, which supports many languages. A language it lacks gets the rules of a related
language or of English, which also split at the sentence marks of other scripts (。 ？ । ؟). A script without sentence
marks, such as Thai, gives one sentence per paragraph. Two rules for Chinese are ours: a double ellipsis ends a
sentence, and a closing quote or bracket belongs to the sentence it closes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sentencex import get_sentence_boundaries

_CHINESE = frozenset({"zh", "yue", "wuu", "lzh"})
_PAIRS = dict(zip("”’」』）》】〉〕)", "“‘「『（《【〈〔(", strict=True))  # closing → opening
_CLOSING = re.escape("".join(_PAIRS))
_CLOSERS = re.compile(f"[{_CLOSING}]+")
_ELLIPSIS = re.compile(f"(?:…{{2,}}|⋯{{2,}})[{_CLOSING}]*+(?![，、；：。！？…⋯,;:.!?])")


def sentence_bounds(paragraph: str, language: str) -> list[tuple[int, int]]:
    """Return (start, end) of every sentence, in characters of `paragraph`, in order.

    Sentences do not overlap, are not empty, and have no white space at either end. Together they contain every
    character except white space. `language` is an ISO 639 code; a region after it ('zh-CN', 'pt_BR') is ignored.

    >>> sentence_bounds("He left. Why?", "en")
    [(0, 8), (9, 13)]
    """
    code = language.replace("_", "-").split("-")[0].lower()
    ends = [boundary["end_index"] for boundary in get_sentence_boundaries(code, paragraph)]
    if code in _CHINESE:
        ends = list(_chinese_ends(paragraph, ends))
    bounds = []
    start = 0
    for end in ends:
        sentence = paragraph[start:end]
        stripped = sentence.strip()
        if stripped:
            first = start + sentence.index(stripped[0])
            bounds.append((first, first + len(stripped)))
        start = end
    return bounds


def _chinese_ends(paragraph: str, ends: list[int]) -> Iterator[int]:
    """Yield sentence ends with closing marks moved into the sentence before, and those of double ellipses."""
    start = 0
    for end in ends:
        closing = _CLOSERS.match(paragraph, end)
        stop = closing.end() if closing else end
        if stop <= start:
            continue
        if "……" in paragraph[start:stop] or "⋯⋯" in paragraph[start:stop]:
            yield from _ellipsis_ends(paragraph, start, stop)
        yield stop
        start = stop


def _ellipsis_ends(paragraph: str, start: int, stop: int) -> Iterator[int]:
    """Yield the ends of the double ellipses in [start, stop) that close a sentence.

    Excluded are those that open the sentence, precede another mark (……，), or are inside a quotation or bracket that
    closes later.
    """
    for match in _ELLIPSIS.finditer(paragraph, start, stop):
        before, after = paragraph[start : match.end()], paragraph[match.end() : stop]
        opens = not paragraph[start : match.start()].strip("“‘「『（《【〈〔( \u3000")
        inside = any(
            before.count(opener) > before.count(closer) and closer in after for closer, opener in _PAIRS.items()
        )
        if not opens and not inside and after.strip():
            yield match.end()
            start = match.end()
