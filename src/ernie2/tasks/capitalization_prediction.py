"""Capitalization prediction: was this word capitalised before the vocabulary lower-cased it? (word-aware)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ernie2.shards.store import CAPITALISED, CASED, WORD_START, AnnotatedDocument
from ernie2.tasks.base import Array, Labels, TokenSequence, TokenTask, register
from ernie2.tasks.blocks import Block


@register
class CapitalizationPrediction(TokenTask):
    """Scores the first piece of every alphabetic word of a script that has case (sub-word rule ours)."""

    name = "capitalization_prediction"
    title = "Capitalization prediction"
    about = "Did the word begin with a capital in the original text?"
    needs = "words of a script that has case"
    baseline_name = "the token's own prior"
    legend = "words written with a capital began with one in the text; the encoder sees all in lower case"
    labels = ("lower", "capital")
    min_scored_share = 0.05
    """English has case in two of three tokens; Chinese text, with its Latin names and abbreviations, in about one of a
    hundred."""

    def unsupported_reason(self) -> str | None:
        """A cased vocabulary shows the answer in the input."""
        if self.vocabulary.cased:
            return "the tokeniser is cased, so every token shows its answer; use an uncased one or leave the task out"
        return None

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Whether words that have case begin at enough of the document's tokens."""
        wanted = WORD_START | CASED
        return int(((document.flags & wanted) == wanted).sum()) >= max(1.0, self.min_scored_share * len(document))

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Label 1 where the original word has an initial capital (paper, Capitalization Prediction Task)."""
        wanted = WORD_START | CASED
        positions = (((sequence.flags & wanted) == wanted) & self.vocabulary.is_text[sequence.tokens]).nonzero()[0]
        return Labels(positions, ((sequence.flags[positions] & CAPITALISED) != 0).astype(np.int64))

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """As `label`: no sequence bears on another, and nothing is drawn."""
        return self.label(block.sequence, rngs[0])

    def format_token(self, text: str, target: int) -> str:
        return text[:1].upper() + text[1:] if target else text

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return sequence.tokens[positions]
