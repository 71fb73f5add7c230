"""Try a task on a corpus before training: whether anything can be shown of it, or why not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from ernie2.errors import TaskError
from ernie2.shards.store import AnnotatedDocument, ShardedCorpus
from ernie2.tasks.base import SentenceTask, Source, Task, TokenTask
from ernie2.tasks.instances import arrange, build

PATIENCE = 2_000
"""Attempts in a row that may show no label of a task before it is stopped by name."""

_DRAWS = 100


class _OneOrigin(TaskError):
    """All documents of a split are of one origin."""


def draw_other(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> AnnotatedDocument | None:
    """Return a random document of another group than `document`, None where there is none."""
    size = corpus.documents(split)
    for _ in range(_DRAWS):
        other = corpus.document(split, int(rng.integers(size)))
        if other.group != document.group:
            return other
    others = corpus.of_other_groups(split, document.group)  # one group has nearly all of the documents
    return corpus.document(split, int(others[rng.integers(len(others))])) if len(others) else None


def why_never(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int) -> str | None:
    """Return why a corpus shows nothing of a task in sequences of up to `sequence_tokens`, None where it does.

    A task whose classes the caller draws must show each of them. Documents are walked over as in training, evenly
    spaced where there are more than `PATIENCE`. Raises `TaskError` where the task breaks its contract.
    """
    labels = task.labels if isinstance(task, SentenceTask) and task.balanced else (None,)
    try:
        for label in labels or ():
            if not _shows(task, corpus, split, sequence_tokens, label):
                what = f"showed the label {label!r}" if label else "had anything to score"
                return f"none of {PATIENCE:,} attempts {what}"
    except _OneOrigin:
        return "all are of one origin"
    return None


def _shows(task: Task, corpus: ShardedCorpus, split: str, sequence_tokens: int, label: str | None) -> bool:
    """Whether one of `PATIENCE` attempts shows `label`, or, where it is None, anything to score."""
    rng = np.random.default_rng(0)
    size = corpus.documents(split)
    looked_at = min(size, PATIENCE)
    sentence_task = task if isinstance(task, SentenceTask) else None
    labellers = [task] if isinstance(task, TokenTask) else []
    turn = sentence = 0
    for _ in range(PATIENCE if size else 0):
        document = corpus.document(split, turn % looked_at * size // looked_at)
        if not task.usable(document):
            turn, sentence = turn + 1, 0
            continue
        source = Source(document, sentence, _other_of(corpus, split, document, rng))
        arranged = arrange(sentence_task, source, label, sequence_tokens, rng)
        if arranged is not None:
            instance = build(arranged, sentence_task, labellers, task.vocabulary, rng)
            if len(instance.labels[task.name].positions):
                return True
        on = arranged.next_sentence if arranged is not None else None
        turn, sentence = (turn, on) if on is not None and on < document.sentence_count else (turn + 1, 0)
    return False


def _other_of(
    corpus: ShardedCorpus, split: str, document: AnnotatedDocument, rng: Generator
) -> Callable[[], AnnotatedDocument]:
    def fetch() -> AnnotatedDocument:
        if (other := draw_other(corpus, split, document, rng)) is None:
            raise _OneOrigin
        return other

    return fetch
