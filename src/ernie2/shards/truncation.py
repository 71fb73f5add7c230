"""Truncation of a pair of texts to a number of tokens, the longer one first (released fine-tuning code)."""

from __future__ import annotations


def longest_first(first: int, second: int, limit: int) -> tuple[int, int]:
    """Return the lengths of two texts after truncation to `limit` tokens in total.

    Tokens are removed from the longer text one at a time, from the second if equal.
    (7, 3) into 8 → (5, 3); (9, 9) into 5 → (3, 2).
    """
    first_length = min(first, max(limit - second, limit - limit // 2))
    return first_length, min(second, limit - first_length)
