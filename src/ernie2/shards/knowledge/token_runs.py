"""Character spans → token runs: sorted, not overlapping, never across sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.int64]
"""(n, 2) int64: start and end of each, in characters or in tokens."""

CUTS_TOKEN = "span cuts a token"
NO_TOKEN = "span without a token"
ACROSS = "span across sentences"
OVERLAPS = "span overlaps another of its kind"
TOO_LONG = "span longer than a sentence may be"


@dataclass(frozen=True, slots=True)
class TokenPositions:
    """Positions of tokens and sentences in a text, to convert character spans to token runs.

    `starts`, `ends` (T,) characters of each token, `starts` ascending; `sentences` (S + 1,) token offsets; runs of more
    than `longest` tokens are dropped, because no sequence can hold them.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    sentences: NDArray[np.int64]
    longest: int

    def runs(self, spans: Spans, drops: Counter[str]) -> Spans:
        """Return the token runs of character spans: sorted, none overlapping, none across sentences.

        A span covers every token inside it; white space at its ends is ignored. A span that contains only part of a
        token is dropped. `drops` counts dropped spans by reason.
        """
        if not len(spans):
            return spans.reshape(0, 2)
        first = np.searchsorted(self.starts, spans[:, 0], side="left")
        end = np.searchsorted(self.ends, spans[:, 1], side="right")
        before = np.concatenate([[-1], self.ends])[first]
        after = np.concatenate([self.starts, [np.iinfo(np.int64).max]])[end]
        partial = (before > spans[:, 0]) | (after < spans[:, 1])
        empty = ~partial & (end <= first)
        inside = np.searchsorted(self.sentences, first, side="right") == np.searchsorted(
            self.sentences, end, side="left"
        )
        valid = ~partial & ~empty
        across, too_long = valid & ~inside, valid & inside & (end - first > self.longest)
        dropped = {CUTS_TOKEN: partial, NO_TOKEN: empty, ACROSS: across, TOO_LONG: too_long}
        drops += Counter({reason: int(mask.sum()) for reason, mask in dropped.items()})
        runs: Spans = np.stack([first, end], axis=1)[valid & inside & ~too_long]
        selected = leftmost_longest(runs)
        if len(selected) < len(runs):
            drops += Counter({OVERLAPS: len(np.unique(runs, axis=0)) - len(selected)})
            runs = runs[selected]
        return runs[np.argsort(runs[:, 0])]


def leftmost_longest(spans: Spans) -> NDArray[np.int64]:
    """Return the indices of non-overlapping spans, chosen from the left, the longest at each position.

    >>> leftmost_longest(np.array([[4, 6], [0, 2], [0, 3], [2, 5]])).tolist()
    [2, 0]
    """
    order: NDArray[np.int64] = np.lexsort((-spans[:, 1], spans[:, 0])).astype(np.int64)
    starts, ends = spans[order].T
    if (starts[1:] >= ends[:-1]).all():
        return order
    selected, free = [], -1
    for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if start >= free:
            selected.append(place)
            free = end
    chosen: NDArray[np.int64] = order[selected]
    return chosen


def as_spans(pairs: Sequence[tuple[int, int]]) -> Spans:
    """Return a list of (start, end) as an (n, 2) array, also if empty."""
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
