"""Knowledge masking: whole words, phrases and entities are hidden, and every hidden piece is predicted (word-aware)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydantic import Field

from ernie2.annotate.shards import SPAN_KINDS, WORD_START
from ernie2.tasks.base import Labels, Options, TokenSequence, TokenTask, register

Array = NDArray[Any]


class KnowledgeMaskingOptions(Options):
    """Options of knowledge masking; the defaults are the released code's, or named as ours."""

    mask_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of units picked."""
    basic_share: float = Field(default=0.1, ge=0, le=1)
    """Share of sequences masked piece by piece instead of unit by unit (ours; the released demo always masks units)."""
    levels: tuple[Literal["word", "phrase", "entity", "user"], ...] = SPAN_KINDS  # type: ignore[assignment]
    """Kinds of spans that are units; where two overlap, the one named later here wins."""


@register
class KnowledgeMasking(TokenTask):
    """Picks 15 % of the units; of the pieces of a picked unit 80 % become [MASK], 10 % a random piece, 10 % stay."""

    name = "knowledge_masking"
    title = "Knowledge masking"
    about = "Which pieces were hidden? Whole words, phrases and entities are hidden together."
    needs = "text of ordinary tokens"
    cheap_rule = "unigram"
    legend = "⟦a unit⟧ is hidden together; ⟦a≡⟧ is left as it was, ⟦a→b⟧ replaced by another piece"
    tallies = "units"
    changes_input = True
    scored_share = 0.25
    labels = None
    Options = KnowledgeMaskingOptions

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Picks units, replaces their pieces, and scores each with its original id (paper, Knowledge Masking Task)."""
        tokens, options = sequence.tokens, self.options
        text = self.vocabulary.text[tokens]  # (n,) bool
        basic = rng.random() < options.basic_share
        starts = np.ones(len(tokens), bool) if basic else unit_starts(sequence, options.levels)
        starts |= sequence.document < 0  # special tokens part units; they are in none that is picked
        unit = starts.cumsum()  # (n,) number of the unit a token belongs to
        units = np.bincount(unit[text]).nonzero()[0]  # numbers of the units that may be picked
        if not len(units):
            return Labels(np.zeros(0, np.int64), np.zeros(0, np.int64), tokens)
        # the fraction is rounded up or down at random, so that short sequences are picked from at the same rate
        wanted = max(1, int(len(units) * options.mask_share + rng.random()))
        picked = np.zeros(int(unit[-1]) + 1, bool)
        picked[units[rng.permutation(len(units))[:wanted]]] = True
        positions = (picked[unit] & text).nonzero()[0]  # an [UNK] inside a picked unit stays, unscored
        fate = rng.random(len(positions))
        random = self.vocabulary.ordinary[rng.integers(len(self.vocabulary.ordinary), size=len(positions))]
        inputs = tokens.copy()
        inputs[positions] = np.where(fate < 0.8, self.vocabulary.mask, np.where(fate < 0.9, random, tokens[positions]))
        return Labels(positions, tokens[positions], inputs)

    def tally(self, sequence: TokenSequence, labels: Labels) -> Mapping[str, int]:
        """Picked units by kind; "piece" where the sequence was masked piece by piece."""
        starts = unit_starts(sequence, self.options.levels) | (sequence.document < 0)
        unit = np.cumsum(starts) - 1
        scored = np.isin(np.arange(len(unit)), labels.positions)
        picked = np.unique(unit[labels.positions])
        if (np.isin(unit, picked) & self.vocabulary.text[sequence.tokens] & ~scored).any():
            return {"piece": len(labels.positions)}
        kinds = {
            (start, end): kind
            for kind in self.options.levels
            for start, end in sequence.spans.get(kind, np.zeros((0, 2), np.int64)).tolist()
        }
        edges = np.append(np.flatnonzero(starts), len(unit))
        return Counter(kinds.get((int(edges[i]), int(edges[i + 1])), "word") for i in picked)


def unit_starts(sequence: TokenSequence, levels: Sequence[str]) -> Array:
    """(n,) bool: the first token of each unit. Words are the ground; spans of `levels` join what they cover.

    A span that overlaps one of a later level is left out; the words it covers stay units.
    """
    n = len(sequence.flags)
    starts = np.ones(n + 1, bool)  # one place more than tokens, so that a span may end at the end
    starts[:n] = (sequence.flags & WORD_START) != 0
    covered: Array | None = None
    for kind in reversed(levels):
        runs = sequence.spans.get(kind)
        if runs is None:
            continue
        if covered is not None:
            before = covered.cumsum()  # covered tokens up to and with each position
            runs = runs[before[runs[:, 1] - 1] - before[runs[:, 0]] + covered[runs[:, 0]] == 0]
        first, end = runs[:, 0], runs[:, 1]
        edges = np.zeros(n + 1, np.int64)
        edges[first] = 1
        edges[end] -= 1
        inside = edges.cumsum() > 0
        starts[inside] = False
        starts[first] = True
        starts[end] = True
        covered = inside if covered is None else covered | inside
    return starts[:n]
