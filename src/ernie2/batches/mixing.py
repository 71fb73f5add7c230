"""Mix corpora by tokens: which of them gives the next instance."""

from __future__ import annotations

from collections.abc import Sequence


def next_corpus(tokens: Sequence[int], shares: Sequence[float], longest: int) -> int:
    """Return the index of the corpus that gives the next instance of at most `longest` tokens.

    `tokens`: what each corpus has given so far; `shares`: what each is to give, summing to 1. Of the corpora that are
    not ahead of their share, the one that would first fall a whole instance behind it is chosen (as WF2Q schedules
    packets of unequal length). No corpus is then ever more than `longest` tokens ahead of its share or behind it.
    Example: next_corpus([40, 10], [0.5, 0.5], 64) == 1.
    """
    if len(tokens) == 1:
        return 0
    total = sum(tokens)
    behind = [share * total - given for share, given in zip(shares, tokens, strict=True)]
    least = min(0.0, max(behind))  # 0, but for rounding
    waiting = [(longest - lag) / share for lag, share in zip(behind, shares, strict=True)]
    return min((c for c, lag in enumerate(behind) if lag >= least), key=waiting.__getitem__)
