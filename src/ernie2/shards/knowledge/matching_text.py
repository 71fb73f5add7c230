"""Normalise a text for gazetteer matching: composed (NFC), without control characters, white space collapsed.

A tokeniser gives the same tokens for "Tower Bridge" with a space, a line break or a no-break space, for "é" composed or
combining, and ignores soft hyphens. Matches are mapped back to characters of the original text.
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

_SPACES = re.compile(r" \s+|[^\S ]\s*")  # white space except single spaces
_PLAIN = re.compile(r"[!-~]+(?: [!-~]+)*")  # nothing to change


@dataclass(frozen=True, slots=True)
class MatchingText:
    """Normalised `text`; `starts`, `ends` (len(text),): the run of original characters of each of its characters."""

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def original(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """Map non-empty (n, 2) spans of `text` to the original text."""
        if not len(spans):
            return spans
        return np.stack([self.starts[spans[:, 0]], self.ends[spans[:, 1] - 1]], axis=1)


def matching_text(text: str) -> MatchingText:
    """Normalise `text` for matching. A blank line becomes a line break: nothing matches across paragraphs.

    >>> matching_text("Tower\\nBridge\\u00a0 in\\n\\nCafe\\u0301").text
    'Tower Bridge in\\nCafé'
    """
    changes = _changes(text)
    parts: list[str] = []
    at = 0
    counts = np.ones(len(text), dtype=np.int64)  # normalised characters, by the original one they begin at
    ends = np.arange(1, len(text) + 1)
    for start, end, replacement in changes:
        parts += (text[at:start], replacement)
        counts[start], ends[start] = len(replacement), end
        counts[start + 1 : end] = 0
        at = end
    starts = np.repeat(np.arange(len(text)), counts)
    return MatchingText("".join([*parts, text[at:]]), starts, ends[starts])


def _changes(text: str) -> list[tuple[int, int, str]]:
    """Return (start, end, replacement) in order, none overlapping."""
    if _PLAIN.fullmatch(text):
        return []
    changes = [(*run.span(), _replace_space(text, *run.span())) for run in _SPACES.finditer(text)]
    for start, end in _find_clusters(text):
        cluster = "".join(c for c in text[start:end] if not _is_dropped(c))
        if (composed := unicodedata.normalize("NFC", cluster)) != text[start:end]:
            changes.append((start, end, composed))
    return sorted(changes)


def _replace_space(text: str, start: int, end: int) -> str:
    """Return the replacement of white space: '' for a line break between two Chinese characters, else one space."""
    run = text[start:end]
    if "\n\n" in run:
        return "\n"
    around = text[start - 1 : start] + text[end : end + 1]
    return "" if "\n" in run and len(around) == 2 and all(map(is_unspaced, around)) else " "


def _find_clusters(text: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of characters that composing or dropping may change, with those they may combine with."""
    joining, alone = (re.escape("".join(filter(kind, set(text)))) for kind in (_joins_before, _changes_in_nfc))
    patterns = ([f"[^\\s{joining}]?[{joining}]+"] if joining else []) + ([f"[{alone}]"] if alone else [])
    if patterns:
        yield from (cluster.span() for cluster in re.finditer("|".join(patterns), text))


@lru_cache(maxsize=100_000)
def _joins_before(character: str) -> bool:
    """Return whether a character may combine with the one before it, or is dropped."""
    return unicodedata.combining(character) > 0 or "\u1160" <= character <= "\u11ff" or _is_dropped(character)


@lru_cache(maxsize=100_000)
def _changes_in_nfc(character: str) -> bool:
    return not character.isspace() and unicodedata.normalize("NFC", character) != character


@lru_cache(maxsize=100_000)
def _is_dropped(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf") and not character.isspace()
