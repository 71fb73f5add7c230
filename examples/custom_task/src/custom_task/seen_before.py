"""Seen before: did this token occur earlier in the sequence?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ernie2.tasks.base import Labels, TokenSequence, TokenTask, register


@register
class SeenBefore(TokenTask):
    """Label 1 if the same token occurs earlier in the sequence, otherwise 0."""

    name = "seen_before"
    title = "Seen before"
    about = "Did this token occur earlier in the sequence?"
    labels = ("first_time", "again")
    baseline_name = "token"
    legend = "word/again occurred earlier, word/first_time did not"

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Score every token except special tokens and [UNK]."""
        positions = np.flatnonzero(self.vocabulary.is_text[sequence.tokens])
        targets = np.ones(len(positions), np.int64)
        targets[np.unique(sequence.tokens[positions], return_index=True)[1]] = 0  # first occurrence of each token
        return Labels(positions, targets)

    def baseline_feature(self, sequence: TokenSequence, positions: NDArray[Any]) -> NDArray[Any]:
        """Return the token itself: "the" has almost always occurred before."""
        return sequence.tokens[positions]
