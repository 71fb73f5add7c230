"""What a token task finds in a sample of a corpus: how many tokens it scores, and what to warn of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ernie2.shards.store import ShardedCorpus
from ernie2.tasks.base import Source, TokenTask
from ernie2.tasks.instances import arrange_plain, build

SAMPLED_DOCUMENTS = 200
"""Documents of a corpus that are sampled, evenly spaced."""
SEQUENCES = 2
"""Sequences taken from the beginning of each."""
LITTLE = 0.01
"""Share of tokens scored below which a task is warned of: each step costs as much as one that scores all (ours)."""


@dataclass(frozen=True, slots=True)
class Survey:
    """`scored`: share of the sampled tokens that the task scores; `notes`: what to warn of, in sentences."""

    scored: float
    notes: tuple[str, ...]


def survey(corpus: ShardedCorpus, task: TokenTask, split: str, sequence_tokens: int) -> Survey | None:
    """Arranges and labels sequences of a sample of documents as training would; None where there is no text."""
    size = corpus.documents(split)
    sampled = min(size, SAMPLED_DOCUMENTS)
    rng = np.random.default_rng(0)
    sequences, scored, tokens = [], 0, 0
    for number in (i * size // sampled for i in range(sampled)):
        document, start = corpus.document(split, number), 0
        for _ in range(SEQUENCES):
            arranged = arrange_plain(Source(document, start), sequence_tokens - 2)
            if arranged is None:
                break
            instance = build(arranged, None, [task], task.vocabulary, rng)
            sequences.append(instance.sequence)
            scored += len(instance.labels[task.name].positions)
            tokens += int((instance.sequence.document >= 0).sum())
            if arranged.next_sentence is None or arranged.next_sentence >= document.sentence_count:
                break
            start = arranged.next_sentence
    if not tokens:
        return None
    share = scored / tokens
    little = max(LITTLE, 2 * task.least_scored)
    notes = [f"it scores {share:.1%} of the tokens, less than {little:.0%}: few labels for the steps it takes."]
    return Survey(share, (*(notes if share < little else []), *task.notes(sequences)))
