"""What kind of character stands where: one byte of bits for every character of a text, by table look-up.

The table is filled as characters turn up, from Python's own Unicode data, so a batch of text costs a few numpy passes.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

LETTER, INNER, CAPITAL, CASED, JOINS, SPACE = 1, 2, 4, 8, 16, 32
"""Bits: a letter (Unicode L*) · may stand inside a word of letters though none (combining marks, apostrophes) · upper
or title case · its script writes initial capitals · of one word with a neighbour that has this bit · white space."""

_APOSTROPHES = frozenset("'’ʼ＇")
_UNSPACED = re.compile(
    "(CJK|HIRAGANA|HANGZHOU|BOPOMOFO|THAI|LAO|KHMER|MYANMAR|TIBETAN|YI|IDEOGRAPHIC) |((HALFWIDTH|COMBINING) )?KATAKANA"
)
"""How Unicode names of characters begin whose scripts put no spaces between words."""
_TABLE = np.full(0x110000, 255, dtype=np.uint8)
_UNSEEN = 255


def character_classes(text: str) -> NDArray[np.uint8]:
    """Bits of every character of `text`, (len(text),) uint8.

    >>> character_classes("É 的").tolist() == [LETTER | CAPITAL | CASED | JOINS, SPACE, LETTER]
    True
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    classes = _TABLE[codes]
    if (unseen := classes == _UNSEEN).any():
        for code in np.unique(codes[unseen]).tolist():
            _TABLE[code] = _classify(chr(code))
        classes = _TABLE[codes]
    return classes


def cuts_word(text: str, spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether each of the (n, 2) spans begins or ends inside a word of a script that puts spaces between words.

    >>> cuts_word("partÉ 北京", np.array([[0, 5], [0, 4], [6, 7]])).tolist()
    [False, True, False]
    """
    joins = np.concatenate([[False], (character_classes(text) & JOINS) > 0, [False]])
    starts, ends = spans.T
    cut: NDArray[np.bool_] = (joins[starts] & joins[starts + 1]) | (joins[ends] & joins[ends + 1])
    return cut


def non_ascii_words(text: str) -> NDArray[np.int64]:
    """(n, 2) spans of words of several characters, not all ASCII, in scripts that put spaces between words.

    Accents, in one character with their letter or in one of their own, are part of a word, and so are digits.

    >>> non_ascii_words("在Église路和cafe").tolist()
    [[1, 7]]
    """
    joins = (character_classes(text) & JOINS) > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], joins, [False]]).astype(np.int8))).reshape(-1, 2)
    chosen = [
        (start, end)
        for start, end in edges.tolist()
        if end - start > 1 and not text[start:end].isascii() and any(map(str.isalpha, text[start:end]))
    ]
    return np.array(chosen, dtype=np.int64).reshape(-1, 2)


def is_unspaced(character: str) -> bool:
    """Whether it is a letter of a script that puts no spaces between words."""
    return bool(character_classes(character)[0] & (LETTER | JOINS) == LETTER)


def _classify(character: str) -> int:
    category = unicodedata.category(character)
    bits = 0
    if category[0] == "L":
        bits |= LETTER
        # the title form, not the upper one: Georgian has upper-case letters but writes no initial capitals
        if character.lower() != character.title():
            bits |= CASED
        if category in ("Lu", "Lt"):
            bits |= CAPITAL
    elif category[0] == "M" or character in _APOSTROPHES:
        bits |= INNER
    if category[0] in "LMN" and not _UNSPACED.match(unicodedata.name(character, "")):
        bits |= JOINS
    if character.isspace():
        bits |= SPACE
    return bits
