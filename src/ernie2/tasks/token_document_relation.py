"""Token-document relation: does the token also occur elsewhere in its document? (word-aware)"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from ernie2.shards.store import AnnotatedDocument
from ernie2.tasks.base import Array, Labels, TokenSequence, TokenTask, register
from ernie2.tasks.blocks import Block


@register
class TokenDocumentRelation(TokenTask):
    """Label 1 iff the id occurs more often in its document than in this instance.

    The paper asks whether the token "appears in other segments of the original document"; no TF-IDF and no stop words,
    as the maintainers confirmed (PaddlePaddle/ERNIE issue 263). Our definition: the segment is all tokens of one
    document in the instance; documents that are completely in the instance are not scored.
    """

    name = "token_document_relation"
    title = "Token-document relation"
    about = "Does the token also occur in the rest of its document?"
    needs = "documents longer than one instance"
    baseline_name = "token"
    legend = "word⁺ also occurs in the rest of its document, word⁻ only here; unmarked words are not scored"
    labels = ("only_here", "elsewhere")

    def can_use(self, document: AnnotatedDocument) -> bool:
        """Return whether the document has two sentences or more and is not a pair, so that text can remain outside."""
        return document.sentence_count > 1 and document.label is None

    def label(self, sequence: TokenSequence, rng: Generator) -> Labels:
        """Score every token except special ones and [UNK], each against its document."""
        document = sequence.document
        included = np.bincount(document[document >= 0], minlength=len(sequence.document_lengths))  # (documents,) tokens
        has_rest = np.append(sequence.document_lengths > included, False)  # [-1]: special tokens
        positions = (has_rest[document] & self.vocabulary.is_text[sequence.tokens]).nonzero()[0]
        key = document[positions] * self.vocabulary.size + sequence.tokens[positions]
        elsewhere = sequence.document_count[positions] - _occurrences(key) > 0
        return Labels(positions, elsewhere.astype(np.int64))

    def label_block(self, block: Block, rngs: Sequence[Generator]) -> Labels:
        """Return the result of `label`: sequences are independent, and no randomness is used."""
        return self.label(block.sequence, rngs[0])

    def format_token(self, text: str, target: int) -> str:
        return text + ("⁺" if target else "⁻")

    def baseline_feature(self, sequence: TokenSequence, positions: Array) -> Array:
        return sequence.tokens[positions]


def _occurrences(key: Array) -> Array:
    """Return the number of occurrences of each value, (n,): [7, 5, 7] → [2, 1, 2]."""
    order = key.argsort()
    ordered = key[order]
    edges = np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]).nonzero()[0]
    counts = edges[1:] - edges[:-1]
    occurrences = np.empty(len(key), np.int64)
    occurrences[order] = np.repeat(counts, counts)
    return occurrences
