"""Traditional → Simplified Chinese, one character for one, so that no offset moves.

DRCD is published in Traditional characters, and the paper's models know Simplified ones. zhconv or opencc, neither of
which ernie2 requires, converts a text as a whole, since some characters depend on their word (乾隆 stays, 乾燥 becomes
干燥); where that changes its length, it is asked about each character by itself. Words of the mainland are not put in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module

from ernie2.errors import DataError, install_advice

_ONLY_TRADITIONAL = frozenset(
    "這個們來說對時會國學發後過還裡為與從見長門問間開關東車馬風飛電話語讀寫書畫點樣種經應該實現"
)
"""Frequent characters with another Simplified form; a Simplified text has next to none of them."""
_ONLY_SIMPLIFIED = frozenset(
    "这个们来说对时会国学发后过还里为与从见长门问间开关东车马风飞电话语读写书画点样种经应该实现"
) - frozenset(
    "后里与"  # these are Traditional characters too, with other meanings
)


def is_traditional(texts: Iterable[str]) -> bool:
    """Whether frequent characters that differ stand there mostly in their Traditional form."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(text)
    return sum(seen[char] for char in _ONLY_TRADITIONAL) > sum(seen[char] for char in _ONLY_SIMPLIFIED)


def build_simplifier(file: str) -> Callable[[str], str]:
    """A function from Traditional to Simplified text of the same length, character for character.

    Raises `DataError` when neither converter is installed; `file` is what it is for.
    """
    convert = _converter(file)

    @cache
    def single(char: str) -> str:
        simple = convert(char)
        return simple if len(simple) == 1 else char

    def simplify(text: str) -> str:
        whole = convert(text)
        return whole if len(whole) == len(text) else "".join(map(single, text))

    return simplify


def _converter(file: str) -> Callable[[str], str]:
    try:
        zhconv = import_module("zhconv")
        return lambda text: str(zhconv.convert(text, "zh-hans"))
    except ImportError:
        pass
    try:
        converter = import_module("opencc").OpenCC("t2s")
        return lambda text: str(converter.convert(text))
    except ImportError:
        raise DataError(
            f"{file} is in Traditional characters, and turning them into Simplified ones needs a converter: "
            f"{install_advice('zh')}. Or give a file that is Simplified already, such as the DRCD files that came with "
            "ERNIE."
        ) from None
