"""Counts with their nouns, for messages."""

from __future__ import annotations


def counted(count: int, thing: str, plural: str = "") -> str:
    """(1, "seed") → "1 seed", (3, "seed") → "3 seeds"; `plural` where it is not made with an s."""
    return f"{count:,} {thing if count == 1 else plural or thing + 's'}"
