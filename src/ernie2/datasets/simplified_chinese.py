"""Convert Traditional to Simplified Chinese, character by character, so that offsets stay valid.

DRCD is in Traditional characters; the vocabulary of the paper's models is Simplified. zhconv or opencc (optional
dependencies) converts complete texts, because some characters depend on their word (乾隆 stays, 乾燥 becomes 干燥). If
that changes the length, each character is converted separately. Regional words are not replaced.
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
"""Frequent characters with a different Simplified form, rare in Simplified text."""
_ONLY_SIMPLIFIED = frozenset(
    "这个们来说对时会国学发后过还里为与从见长门问间开关东车马风飞电话语读写书画点样种经应该实现"
) - frozenset(
    "后里与"  # also Traditional characters, with other meanings
)


def is_traditional(texts: Iterable[str]) -> bool:
    """Return whether frequent characters with two forms are mostly in their Traditional form."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return sum(counts[char] for char in _ONLY_TRADITIONAL) > sum(counts[char] for char in _ONLY_SIMPLIFIED)


def build_simplifier(file: str) -> Callable[[str], str]:
    """Return a function that converts Traditional to Simplified text of the same length.

    Raises `DataError` with `file` if neither converter is installed.
    """
    convert = _converter(file)

    @cache
    def convert_character(char: str) -> str:
        simple = convert(char)
        return simple if len(simple) == 1 else char

    def simplify(text: str) -> str:
        converted = convert(text)
        return converted if len(converted) == len(text) else "".join(map(convert_character, text))

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
            f"{file} is in Traditional characters, and conversion to Simplified ones needs a converter: "
            f"{install_advice('zh')}. Or use a file in Simplified characters, such as the DRCD files released with "
            "ERNIE."
        ) from None
