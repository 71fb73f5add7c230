"""Instances: sequences arranged by at most one sentence task and labelled by any number of token tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ernie2.errors import USER_CODE_ERRORS, TaskError, user_code_location
from ernie2.tasks.base import (
    Arrangement,
    Array,
    Labels,
    Segment,
    SentenceTask,
    Source,
    TokenSequence,
    TokenTask,
    Vocabulary,
)
from ernie2.tasks.blocks import describe_type, label_block, lay_out_block
from ernie2.tasks.pairs import last_boundary, truncate_pair

_FIRST = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class Instance:
    """One sequence to be packed: `inputs` and `segment` (n,) int64, and the labels of each task.

    `sequence` holds the tokens before any task replaced some; a sentence task scores position 0.
    """

    inputs: Array
    segment: Array
    labels: Mapping[str, Labels]
    sequence: TokenSequence

    def __len__(self) -> int:
        return len(self.inputs)


def arrange_unlabelled(source: Source, max_tokens: int) -> Arrangement | None:
    """Arrange the longest run of sentences from `source.start` on that fits `max_tokens`.

    A longer first sentence is cut at the last unit boundary, so that no word or span is split; only a unit longer than
    `max_tokens` is cut inside. A labelled pair becomes two segments, as in the task that predicts its label; None if
    they do not fit. `max_tokens` excludes [CLS] and one [SEP]; the second [SEP] of a pair counts as a token.
    """
    document = source.document
    if document.label is not None:
        texts = truncate_pair(document, max_tokens - 1)
        return None if texts is None else Arrangement(texts, None)
    start = int(document.sentences[source.start])
    end = int(document.sentences.searchsorted(start + max_tokens, side="right")) - 1
    end = max(end, source.start + 1)
    stop = int(document.sentences[end])
    if stop - start > max_tokens:
        cut = last_boundary(document, start, start + max_tokens, stop)
        stop = cut if cut > start else start + max_tokens
    return Arrangement((Segment(document, start, stop),), None, next_sentence=end)


def arrange(
    task: SentenceTask | None, source: Source, label: str | None, limit: int, rng: Generator
) -> Arrangement | None:
    """Arrange `source` with `task`, or without a label if it is None, into a sequence of at most `limit` tokens.

    Raises `TaskError` with task and document if the task fails or its result is invalid.
    """
    if task is None:
        return arrange_unlabelled(source, limit - 2)
    max_tokens = limit - 1 - task.max_segments
    try:
        arranged = task.arrange(source, label, max_tokens, rng)
    except TaskError:
        raise
    except USER_CODE_ERRORS as error:
        raise TaskError(
            f"task {task.name!r} failed on document {source.document.name!r}: {error!r}{user_code_location(error)}"
        ) from error
    if arranged is not None:
        _check(task, source, arranged, max_tokens)
    return arranged


def lay_out(arranged: Arrangement, vocabulary: Vocabulary) -> TokenSequence:
    """Lay segments out as [CLS] segment [SEP] segment [SEP] …, with the shard's columns for each token."""
    return lay_out_block([arranged], vocabulary).sequence


def build_instance(
    arranged: Arrangement,
    sentence_task: SentenceTask | None,
    token_tasks: Sequence[TokenTask],
    vocabulary: Vocabulary,
    rng: Generator,
) -> Instance:
    """Lay `arranged` out and label it with every task; see `blocks.label_block`."""
    block = lay_out_block([arranged], vocabulary)
    inputs, labels = label_block(block, token_tasks, [rng])
    if sentence_task is not None:
        labels[sentence_task.name] = Labels(_FIRST, np.array([arranged.label], np.int64))
    return Instance(inputs, block.sequence.segment, labels, block.sequence)


def _check(task: SentenceTask, source: Source, arranged: object, max_tokens: int) -> None:
    where = f"task {task.name!r}, document {source.document.name!r}"
    if not isinstance(arranged, Arrangement):
        raise TaskError(f"{where}: returned {describe_type(arranged)}, neither Arrangement nor None.")
    segments = arranged.segments if isinstance(arranged.segments, tuple | list) else [None]
    tokens, empty, outside = 0, not segments, False
    for segment in segments:
        if not isinstance(segment, Segment):
            raise TaskError(f"{where}: segments must be a tuple of Segment.")
        start, end = segment.start, segment.end
        tokens += end - start
        empty |= end <= start
        outside |= start < 0 or end > len(segment.document.tokens)
    if empty:
        raise TaskError(f"{where}: returned an empty arrangement; return None if a document cannot give the label.")
    if len(arranged.segments) > task.max_segments:
        raise TaskError(
            f"{where}: arranged {len(arranged.segments)} segments; its max_segments is {task.max_segments}."
        )
    if outside:
        raise TaskError(f"{where}: arranged tokens outside the document.")
    if tokens > max_tokens:
        raise TaskError(f"{where}: arranged {tokens} tokens, but at most {max_tokens} fit.")
    if not isinstance(arranged.label, int | np.integer) or not 0 <= arranged.label < len(task.labels):
        raise TaskError(f"{where}: label {arranged.label!r} is none of its {len(task.labels)} classes.")
    if arranged.next_sentence is not None and arranged.next_sentence <= source.start:
        raise TaskError(
            f"{where}: next_sentence must be greater than {source.start}, the start (got {arranged.next_sentence})."
        )
