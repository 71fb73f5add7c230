"""Character classes of a text: one byte of bits per character, by table look-up.

The table is filled lazily from Python's Unicode data, so classifying a batch of text takes a few numpy passes.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

LETTER, INNER, CAPITAL, CASED, JOINS, SPACE = 1, 2, 4, 8, 16, 32
"""Bits: a letter (Unicode L*) · allowed inside a word of letters (combining marks, apostrophes) · upper or title case ·
its script writes initial capitals · part of one word with a neighbour that has this bit · white space."""

_APOSTROPHES = frozenset("'’ʼ＇")
_UNSPACED = re.compile(
    "(CJK|HIRAGANA|HANGZHOU|BOPOMOFO|THAI|LAO|KHMER|MYANMAR|TIBETAN|YI|IDEOGRAPHIC) |((HALFWIDTH|COMBINING) )?KATAKANA"
)
"""Beginnings of Unicode names of characters whose scripts put no spaces between words."""
_TABLE = np.full(0x110000, 255, dtype=np.uint8)
_UNSEEN = 255


def character_classes(text: str) -> NDArray[np.uint8]:
    """Return the bits of every character of `text`, (len(text),) uint8.

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
    """Return (n,) whether each of the (n, 2) spans begins or ends inside a word of a script with spaces between words.

    >>> cuts_word("partÉ 北京", np.array([[0, 5], [0, 4], [6, 7]])).tolist()
    [False, True, False]
    """
    joins = np.concatenate([[False], (character_classes(text) & JOINS) > 0, [False]])
    starts, ends = spans.T
    cut: NDArray[np.bool_] = (joins[starts] & joins[starts + 1]) | (joins[ends] & joins[ends + 1])
    return cut


def non_ascii_words(text: str) -> NDArray[np.int64]:
    """Return (n, 2) spans of words of several characters, not all ASCII, in scripts with spaces between words.

    Accents, composed or combining, and digits are part of a word.

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
    """Return whether a character is a letter of a script without spaces between words."""
    return bool(character_classes(character)[0] & (LETTER | JOINS) == LETTER)


def _classify(character: str) -> int:
    category = unicodedata.category(character)
    bits = 0
    if category[0] == "L":
        bits |= LETTER
        # title case, not upper: Georgian has upper-case letters but writes no initial capitals
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
