"""What the tags of a tagged text mark: entities of IOB2."""

from __future__ import annotations

from collections.abc import Sequence


def entities(tags: Sequence[str], *, strict: bool = True) -> list[tuple[str, int, int]]:
    """(kind, start, end) of every entity that IOB2 `tags` mark, end exclusive.

    An entity begins at B- and goes on over I- of its kind. An I- with no such entity before it opens none when
    `strict`; else it begins one, as in the chunk scorer of the ERNIE scripts. Any other tag is outside.

    B-PER I-PER I-LOC O I-LOC -> strict: PER 0–2; else also LOC 2–3 and LOC 4–5.
    """
    found: list[tuple[str, int, int]] = []
    kind, start = "", 0
    for at, tag in enumerate((*tags, "O")):
        prefix, _, name = tag.partition("-")
        if kind and not (prefix == "I" and name == kind):
            found.append((kind, start, at))
            kind = ""
        if name and (prefix == "B" or (prefix == "I" and not kind and not strict)):
            kind, start = name, at
    return found
