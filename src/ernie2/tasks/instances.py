"""Instances: arranged once, by at most one sentence task, and labelled by any number of token tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ernie2.errors import TaskError
from ernie2.shards.store import AnnotatedDocument
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
        """Number of tokens, special ones included."""
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
    except Exception as error:
        raise TaskError(f"task {task.name!r} failed on document {source.document.name!r}: {error!r}") from error
    if arranged is not None:
        _check(task, source, arranged, room)
    return arranged


def lay_out(arranged: Arranged, vocabulary: Vocabulary) -> TokenSequence:
    """Lays segments out as [CLS] segment [SEP] segment [SEP] …, with the shard's columns beside the tokens."""
    segments = arranged.segments
    length = 1 + sum(len(segment) + 1 for segment in segments)
    tokens = np.full(length, vocabulary.sep, np.int64)
    tokens[0] = vocabulary.cls
    flags = np.zeros(length, np.uint8)
    document_count = np.zeros(length, np.int64)
    document = np.full(length, -1, np.int64)
    segment_type = np.zeros(length, np.int64)
    spans: dict[str, list[Array]] = {}
    shown: list[AnnotatedDocument] = []
    at = 1
    for number, segment in enumerate(segments):
        source, start, end = segment.document, segment.start, segment.end
        which = next((i for i, seen in enumerate(shown) if seen is source), len(shown))
        if which == len(shown):
            shown.append(source)
        to = at + end - start
        tokens[at:to] = source.tokens[start:end]
        flags[at:to] = source.flags[start:end]
        document_count[at:to] = source.document_count[start:end]
        document[at:to] = which
        segment_type[at : to + 1] = number
        for kind, runs in source.spans.items():
            first = runs[:, 0].searchsorted(start)
            last = runs[:, 1].searchsorted(end, side="right")
            if last > first:
                spans.setdefault(kind, []).append(runs[first:last] + (at - start))
        at = to + 1
    joined = {kind: runs[0] if len(runs) == 1 else np.concatenate(runs) for kind, runs in spans.items()}
    lengths = np.array([len(source) for source in shown], np.int64)
    return TokenSequence(tokens, flags, document_count, document, segment_type, joined, len(segments), lengths)


def build(
    arranged: Arranged,
    sentence_task: SentenceTask | None,
    token_tasks: Sequence[TokenTask],
    vocabulary: Vocabulary,
    rng: Generator,
) -> Instance:
    """Lays `arranged` out and lets every task label it; tasks that change the input go last.

    Token tasks do not score tokens that another task replaced: their own label would be about a token nobody sees.
    """
    sequence = lay_out(arranged, vocabulary)
    changing = changing_task(token_tasks)
    labels = {task.name: label_sequence(task, sequence, rng, arranged) for task in token_tasks if task is not changing}
    inputs = sequence.tokens
    if changing is not None:
        made = label_sequence(changing, sequence, rng, arranged)
        if made.inputs is not None:
            inputs, labels = made.inputs, still_seen(labels, made.inputs == sequence.tokens)
        labels[changing.name] = made
    if sentence_task is not None:
        labels[sentence_task.name] = Labels(_FIRST, np.array([arranged.label], np.int64))
    return Instance(inputs, sequence.segment, labels, sequence)


def changing_task(token_tasks: Sequence[TokenTask]) -> TokenTask | None:
    """Return the task that changes the input, None without one. Raises `TaskError` where there are several."""
    changing = [task for task in token_tasks if task.changes_input]
    if len(changing) > 1:
        names = " and ".join(repr(task.name) for task in changing)
        raise TaskError(
            f"tasks {names} all change the input, so they cannot label one instance; leave all but one out."
        )
    return changing[0] if changing else None


def still_seen(labels: Mapping[str, Labels], kept: Array) -> dict[str, Labels]:
    """Return `labels` without the positions whose token was replaced; `kept` (n,) bool: tokens that were not."""
    seen = {name: kept[each.positions] for name, each in labels.items()}
    return {name: Labels(each.positions[seen[name]], each.targets[seen[name]]) for name, each in labels.items()}


def label_sequence(task: TokenTask, sequence: TokenSequence, rng: Generator, arranged: Arranged) -> Labels:
    """Let `task` label one sequence. Raises `TaskError`, naming task and document, when it breaks its contract."""
    try:
        made = task.label(sequence, rng)
    except Exception as error:
        where = arranged.segments[0].document.name
        raise TaskError(f"task {task.name!r} failed on document {where!r}: {error!r}") from error
    check_labels(task, sequence, made, arranged)
    return made


def check_labels(task: TokenTask, sequence: TokenSequence, made: object, arranged: Arranged) -> None:
    """Raise `TaskError` where what `task` returned for `sequence` is no labels of it; `arranged` is named."""
    if (problem := _problem(task, sequence, made)) is not None:
        raise TaskError(f"task {task.name!r}, document {arranged.segments[0].document.name!r}: {problem}.")


def _problem(task: TokenTask, sequence: TokenSequence, made: object) -> str | None:
    """What is wrong with what a task returned for labels, or None."""
    if not isinstance(made, Labels):
        return f"returned {_kind(made)}, not Labels; Labels without positions score nothing"
    positions, targets, inputs, length = made.positions, made.targets, made.inputs, len(sequence.tokens)
    for name, array in (("positions", positions), ("targets", targets), ("inputs", inputs)):
        if array is not None and not _whole_numbers(array):
            return f"{name} are {_kind(array)}, not one row of whole numbers"
    if len(positions) != len(targets):
        return f"{len(positions)} positions but {len(targets)} targets"
    if inputs is not None and not task.changes_input:
        return "returned inputs, though it says it changes none"
    if inputs is not None and len(inputs) != length:
        return f"returned {len(inputs)} inputs for a sequence of {length} tokens"
    if not len(positions):
        return None
    if (positions[1:] <= positions[:-1]).any():
        return "scored positions do not ascend"
    if positions[0] < 0 or positions[-1] >= length:
        return f"scores positions {positions[0]}…{positions[-1]} of a sequence of {length} tokens"
    if sequence.document[positions].min() < 0:
        return "scores a special token"
    classes = len(task.labels) if task.labels is not None else task.vocabulary.size
    if targets.min() < 0 or targets.max() >= classes:
        return f"labels {targets.min()}…{targets.max()}, but it has {classes} classes"
    return None


def _whole_numbers(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iu"


def _kind(value: object) -> str:
    """What a value is, for a message: 'a str', 'an array of float64 with shape (3,)'."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"


def _check(task: SentenceTask, source: Source, arranged: object, room: int) -> None:
    where = f"task {task.name!r}, document {source.document.name!r}"
    if not isinstance(arranged, Arranged):
        raise TaskError(f"{where}: returned {_kind(arranged)}, neither Arranged nor None.")
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
