"""What kind of character stands where: one byte of bits for every character of a text, by table look-up.

The table is filled as characters turn up, from Python's own Unicode data, so a batch of text costs a few numpy passes.
"""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

LETTER, INNER, CAPITAL, CASED, JOINS, SPACE = 1, 2, 4, 8, 16, 32
"""Bits: a letter (Unicode L*) · may stand inside a word of letters though none (combining marks, apostrophes) · upper
or title case · its script writes initial capitals · of one word with a neighbour that has this bit · white space."""

_APOSTROPHES = frozenset("'’ʼ＇")
_UNSPACED = (
    "CJK ",
    "HIRAGANA ",
    "KATAKANA ",
    "BOPOMOFO ",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
    "YI ",
    "IDEOGRAPHIC ",
)
"""Beginnings of the Unicode names of characters whose scripts put no spaces between words."""
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
    if category[0] in "LMN" and not unicodedata.name(character, "").startswith(_UNSPACED):
        bits |= JOINS
    if character.isspace():
        bits |= SPACE
    return bits
