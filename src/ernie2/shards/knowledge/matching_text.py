"""A text as a gazetteer compares it: composed (NFC), without control characters, white space collapsed.

A tokeniser makes the same tokens of "Tower Bridge" whatever stands between the words, a space, a line break, a no-break
space; of "é" in one character or in two; and drops soft hyphens. Spans come back in characters of the text as it was.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ernie2.shards.knowledge.characters import is_unspaced

_SPACES = re.compile(r" \s+|[^\S ]\s*")  # white space but for single spaces
_PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")  # nothing to change


@dataclass(frozen=True, slots=True)
class MatchingText:
    """`text` to search; `starts`, `ends` (len(text),): the run of characters of the text as it was that each is of."""

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def original(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n, 2) spans of `text`, none empty -> of the text as it was."""
        if not len(spans):
            return spans
        return np.stack([self.starts[spans[:, 0]], self.ends[spans[:, 1] - 1]], axis=1)


def matching_text(text: str) -> MatchingText:
    """Return `text` as it is compared. A blank line stays one: nothing is found across paragraphs.

    >>> matching_text("Tower\\nBridge\\u00a0 in\\n\\nCafe\\u0301").text
    'Tower Bridge in\\nCafé'
    """
    changes = _changes(text)
    parts: list[str] = []
    at = 0
    counts = np.ones(len(text), dtype=np.int64)  # characters that are compared, by the one they begin at
    ends = np.arange(1, len(text) + 1)
    for start, end, instead in changes:
        parts += (text[at:start], instead)
        counts[start], ends[start] = len(instead), end
        counts[start + 1 : end] = 0
        at = end
    starts = np.repeat(np.arange(len(text)), counts)
    return MatchingText("".join([*parts, text[at:]]), starts, ends[starts])


def _changes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, what stands there instead), in order, none overlapping."""
    if _PLAIN.fullmatch(text):
        return []
    changes = [(*run.span(), _space(text, *run.span())) for run in _SPACES.finditer(text)]
    for start, end in _clusters(text):
        cluster = "".join(c for c in text[start:end] if not _dropped(c))
        if (composed := unicodedata.normalize("NFC", cluster)) != text[start:end]:
            changes.append((start, end, composed))
    return sorted(changes)


def _space(text: str, start: int, end: int) -> str:
    """What white space is compared as: a line break between two Chinese characters is nothing, as on paper."""
    run = text[start:end]
    if "\n\n" in run:
        return "\n"
    around = text[start - 1 : start] + text[end : end + 1]
    return "" if "\n" in run and len(around) == 2 and all(map(is_unspaced, around)) else " "


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Characters that composing or dropping may change, each with the characters it may combine with."""
    joining, alone = (re.escape("".join(filter(kind, set(text)))) for kind in (_joins_before, _changes_alone))
    patterns = ([f"[^\\s{joining}]?[{joining}]+"] if joining else []) + ([f"[{alone}]"] if alone else [])
    if patterns:
        yield from (cluster.span() for cluster in re.finditer("|".join(patterns), text))


@lru_cache(maxsize=100_000)
def _joins_before(character: str) -> bool:
    """Whether it may combine with what stands before it, or is dropped."""
    return unicodedata.combining(character) > 0 or "\u1160" <= character <= "\u11ff" or _dropped(character)


@lru_cache(maxsize=100_000)
def _changes_alone(character: str) -> bool:
    return not character.isspace() and unicodedata.normalize("NFC", character) != character


@lru_cache(maxsize=100_000)
def _dropped(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and not character.isspace()
