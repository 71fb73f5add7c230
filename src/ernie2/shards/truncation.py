"""Truncation of a pair of texts to a number of tokens, the longer one first (released fine-tuning code)."""

from __future__ import annotations


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths left of two texts when tokens are taken off the longer one, of equal ones off the second, until they fit.

    (7, 3) into 8 → (5, 3); (9, 9) into 5 → (3, 2).
    """
    kept = min(first, max(room - second, room - room // 2))
    return kept, min(second, room - kept)
