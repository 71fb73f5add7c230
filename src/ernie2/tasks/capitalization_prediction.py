"""Capitalization prediction: did the word begin with a capital before lower-casing? (word-aware)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ernie2.shards.store import CAPITALISED, CASED, WORD_START, AnnotatedDocument
from ernie2.tasks.base import Array, Labels, TokenSequence, TokenTask, register
from ernie2.tasks.blocks import Block


@register
class CapitalizationPrediction(TokenTask):
    """Score the first token of every alphabetic word of a script with case (sub-word rule ours)."""

    name = "capitalization_prediction"
    title = "Capitalization prediction"
    about = "Did the word begin with a capital in the original text?"
    needs = "words of a script that has case"
    baseline_name = "token"
    legend = "words are shown with their original capitals; the encoder reads all in lower case"
    labels = ("lower", "capital")
    min_scored_share = 0.05
    """In English, two of three tokens have case; in Chinese with Latin names and abbreviations, about one in a
    hundred."""

    def unsupported_reason(self) -> str | None:
        """Refuse cased vocabularies, whose tokens show the answer."""
        if self.vocabulary.cased:
            return "the tokeniser is cased, so every token shows its answer; use an uncased one or remove the task"
        return None

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Return whether enough of the document's tokens begin a word that has case."""
        wanted = WORD_START | CASED
        return int(((document.flags & wanted) == wanted).sum()) >= max(1.0, self.min_scored_share * len(document))

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Label 1 where the original word has an initial capital (paper, Capitalization Prediction Task)."""
        wanted = WORD_START | CASED
        positions = (((sequence.flags & wanted) == wanted) & self.vocabulary.is_text[sequence.tokens]).nonzero()[0]
        return Labels(positions, ((sequence.flags[positions] & CAPITALISED) != 0).astype(np.int64))

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """Return the result of `label`: sequences are independent, and no randomness is used."""
        return self.label(block.sequence, rngs[0])

    def format_token(self, text: str, target: int) -> str:
        return text[:1].upper() + text[1:] if target else text

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return sequence.tokens[positions]
