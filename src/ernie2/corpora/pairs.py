"""Tables of labelled pairs → documents of two paragraphs and a label."""

from __future__ import annotations

import re
from collections.abc import Iterable

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def sort_labels(labels: Iterable[str]) -> list[str]:
    """The distinct names of `labels` in their one order: by number where all are integers, else by name.

    {"10", "9"} -> ["9", "10"] and {"b", "10", "9"} -> ["10", "9", "b"].
    """
    names = sorted(set(labels))
    return sorted(names, key=int) if all(map(_INTEGER.fullmatch, names)) else names
