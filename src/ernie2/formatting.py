"""Format numbers, counts and lists for people: thousands separators, three decimals, a dash for unknown values."""

from __future__ import annotations

import math
from collections.abc import Sequence

DASH = "–"
_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def decimal(value: float | None, digits: int = 3) -> str:
    """0.41249 → "0.412"; a dash for None, NaN and infinities; U+2212 as minus sign, and no sign if rounded to zero."""
    return DASH if value is None or not math.isfinite(value) else f"{value:z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float | None, digits: int = 3) -> str:
    """0.2 → "+0.200", -0.2 → "−0.200"; no sign if rounded to zero."""
    text = decimal(value, digits)
    return text if value is None or text[0] in f"\N{MINUS SIGN}{DASH}" or float(text) == 0 else f"+{text}"


def interval(low: float | None, high: float | None) -> str:
    """(0.38, 0.44) → "0.380–0.440"; empty if a bound is unknown."""
    return "" if low is None or high is None else f"{decimal(low)}–{decimal(high)}"


def integer(value: float | None) -> str:
    """1234567 → "1,234,567"."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}"


def rounded(value: float | None) -> str:
    """1234567 → "1.23 million"; all digits below a million."""
    if value is None or not math.isfinite(value) or value < 1e6:
        return integer(value)
    size, name = (1e9, "billion") if value >= 1e9 else (1e6, "million")
    return f"{value / size:,.{2 if value < 10 * size else 1 if value < 100 * size else 0}f} {name}"


def duration(seconds: float | None) -> str:
    """412.3 → "6 min 52 s"."""
    if seconds is None or not math.isfinite(seconds):
        return DASH
    total = round(seconds)
    days, hours, minutes = total // 86_400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"


def clock(seconds: float) -> str:
    """42 → "0:42" (m:ss), 11262 → "3:07:42" (h:mm:ss); from two days, "12 days 3 h"."""
    total = round(seconds)
    if total >= 2 * 86_400:
        return f"{total // 86_400} days {total % 86_400 // 3_600} h"
    hours, minutes = total // 3_600, total % 3_600 // 60
    return f"{hours}:{minutes:02}:{total % 60:02}" if hours else f"{minutes}:{total % 60:02}"


def percent(part: float, of: float) -> str:
    """(3, 4) → "75 %"; below 10 %, with one decimal."""
    if not of:
        return DASH
    share = 100 * part / of
    return f"{share:.0f} %" if share >= 10 or share == 0 else f"{share:.1f} %"


def number_word(number: int) -> str:
    """3 → "three"; digits above twelve."""
    return _WORDS[number] if number < len(_WORDS) else integer(number)


def join_words(words: Sequence[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def quantity(count: int, thing: str, plural: str = "") -> str:
    """(1, "seed") → "1 seed", (3, "seed") → "3 seeds"; `plural` if it is irregular."""
    return f"{count:,} {thing if count == 1 else plural or thing + 's'}"
