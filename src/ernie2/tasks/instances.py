"""Instances: arranged once, by at most one sentence task, and labelled by any number of token tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ernie2.errors import USER_FAULTS, TaskError, raised_at
from ernie2.tasks.base import (
    Arranged,
    Array,
    Labels,
    Segment,
    SentenceTask,
    Source,
    TokenSequence,
    TokenTask,
    Vocabulary,
)
from ernie2.tasks.blocks import kind_of, label_block, lay_out_block
from ernie2.tasks.pairs import fit, last_boundary

_FIRST = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class Instance:
    """One sequence ready to be packed: `inputs` and `segment` (n,) int64, and what each task scores in it.

    `sequence` is what was there before any task replaced tokens; a sentence task scores position 0.
    """

    inputs: Array
    segment: Array
    labels: Mapping[str, Labels]
    sequence: TokenSequence

    def __len__(self) -> int:
        return len(self.inputs)


def arrange_plain(source: Source, room: int) -> Arranged | None:
    """Takes the longest run of sentences from `source.start` on that fits `room` tokens.

    A first sentence of more is cut back to the end of a whole unit, so that neither a word nor a span is split; only a
    unit that is itself longer than the room is cut at it. A labelled pair is shown as its two texts, as in the task
    that asks for its label; None where they do not fit.
    `room` leaves out [CLS] and one [SEP]; the second [SEP] of a pair counts as one of its tokens.
    """
    document = source.document
    if document.label is not None:
        texts = fit(document, room - 1)
        return None if texts is None else Arranged(texts, None)
    start = int(document.sentences[source.start])
    end = int(document.sentences.searchsorted(start + room, side="right")) - 1
    end = max(end, source.start + 1)
    stop = int(document.sentences[end])
    if stop - start > room:
        cut = last_boundary(document, start, start + room, stop)
        stop = cut if cut > start else start + room
    return Arranged((Segment(document, start, stop),), None, next_sentence=end)


def arrange(
    task: SentenceTask | None, source: Source, label: str | None, limit: int, rng: Generator
) -> Arranged | None:
    """Arranges `source` by `task`, or plainly where it is None, into a sequence of at most `limit` tokens.

    Raises `TaskError`, naming task and document, when the task breaks its contract.
    """
    if task is None:
        return arrange_plain(source, limit - 2)
    room = limit - 1 - task.max_segments
    try:
        arranged = task.arrange(source, label, room, rng)
    except TaskError:
        raise
    except USER_FAULTS as error:
        raise TaskError(
            f"task {task.name!r} failed on document {source.document.name!r}: {error!r}{raised_at(error)}"
        ) from error
    if arranged is not None:
        _check(task, source, arranged, room)
    return arranged


def lay_out(arranged: Arranged, vocabulary: Vocabulary) -> TokenSequence:
    """Lays segments out as [CLS] segment [SEP] segment [SEP] …, with the shard's columns beside the tokens."""
    return lay_out_block([arranged], vocabulary).whole


def build(
    arranged: Arranged,
    sentence_task: SentenceTask | None,
    token_tasks: Sequence[TokenTask],
    vocabulary: Vocabulary,
    rng: Generator,
) -> Instance:
    """Lays `arranged` out and lets every task label it, as `blocks.label_block` says."""
    block = lay_out_block([arranged], vocabulary)
    inputs, labels = label_block(block, token_tasks, [rng])
    if sentence_task is not None:
        labels[sentence_task.name] = Labels(_FIRST, np.array([arranged.label], np.int64))
    return Instance(inputs, block.whole.segment, labels, block.whole)


def _check(task: SentenceTask, source: Source, arranged: object, room: int) -> None:
    where = f"task {task.name!r}, document {source.document.name!r}"
    if not isinstance(arranged, Arranged):
        raise TaskError(f"{where}: returned {kind_of(arranged)}, neither Arranged nor None.")
    segments = arranged.segments if isinstance(arranged.segments, tuple | list) else [None]
    tokens, empty, outside = 0, not segments, False
    for segment in segments:
        if not isinstance(segment, Segment):
            raise TaskError(f"{where}: arranged something other than a tuple of Segments.")
        start, end = segment.start, segment.end
        tokens += end - start
        empty |= end <= start
        outside |= start < 0 or end > len(segment.document.tokens)
    if empty:
        raise TaskError(f"{where}: returned an empty arrangement; return None where a document cannot show the label.")
    if len(arranged.segments) > task.max_segments:
        raise TaskError(
            f"{where}: arranged {len(arranged.segments)} segments; it announces at most {task.max_segments}."
        )
    if outside:
        raise TaskError(f"{where}: arranged tokens outside the document.")
    if tokens > room:
        raise TaskError(f"{where}: arranged {tokens} tokens into a room of {room}.")
    if not isinstance(arranged.label, int | np.integer) or not 0 <= arranged.label < len(task.labels):
        raise TaskError(f"{where}: label {arranged.label!r} is none of its {len(task.labels)} classes.")
    if arranged.next_sentence is not None and arranged.next_sentence <= source.start:
        raise TaskError(
            f"{where}: the walk does not go on (next sentence {arranged.next_sentence}, was {source.start})."
        )
