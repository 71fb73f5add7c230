"""Blocks: many arranged instances laid out and labelled at once, with the result of `instances.build` for each.

Calls on arrays of 50 tokens cost as much as on arrays of 5,000, so short sequences are worked on together.

n tokens of all sequences · s sequences · k spans
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from ernie2.errors import TaskError
from ernie2.tasks.base import Arranged, Array, Labels, Segment, TokenSequence, TokenTask, Vocabulary
from ernie2.tasks.instances import changing_task, check_labels, label_sequence, still_seen


@dataclass(frozen=True, slots=True)
class Block:
    """Sequences end to end: sequence i is tokens `starts[i] : starts[i + 1]` of `whole`.

    `whole` is one `TokenSequence` of them all: its `document` counts on from sequence to sequence, so that no two share
    one; `segments` is the largest number in one. `starts` (s + 1,) int64; `documents` (s + 1,): number of the first
    document of each; `arranged`: what was laid out.
    """

    whole: TokenSequence
    starts: Array
    documents: Sequence[int]
    arranged: Sequence[Arranged] = ()

    @staticmethod
    def of(sequence: TokenSequence) -> Block:
        """Return a block of one sequence that was laid out already."""
        return Block(sequence, np.array([0, len(sequence.tokens)]), [0, len(sequence.document_lengths)])

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.starts) - 1

    def sequence(self, number: int) -> TokenSequence:
        """Return one sequence alone, as `instances.lay_out` makes it."""
        whole, (start, end) = self.whole, self.starts[number : number + 2].tolist()
        first, last = self.documents[number : number + 2]
        document = whole.document[start:end]
        spans = {}
        for kind, runs in whole.spans.items():
            begin, stop = runs[:, 0].searchsorted((start, end))
            if stop > begin:
                spans[kind] = runs[begin:stop] - start
        return TokenSequence(
            whole.tokens[start:end],
            whole.flags[start:end],
            whole.document_count[start:end],
            np.where(document < 0, -1, document - first),
            whole.segment[start:end],
            spans,
            len(self.arranged[number].segments),
            whole.document_lengths[first:last],
        )


def lay_out_block(arranged: Sequence[Arranged], vocabulary: Vocabulary) -> Block:
    """Lay instances out as [CLS] segment [SEP] segment [SEP] …, one after the other."""
    segments = [segment for one in arranged for segment in one.segments]
    numbers = [number for one in arranged for number in range(len(one.segments))]
    lengths = [segment.end - segment.start for segment in segments]
    opened = np.array([number == 0 for number in numbers])  # a first segment has [CLS] before it
    runs = np.array(lengths) + 1 + opened  # tokens of each segment, special ones included
    ends = runs.cumsum()
    n = int(ends[-1])
    special = np.zeros(n, bool)
    special[ends - 1] = True
    first_tokens = (ends - runs)[opened]
    special[first_tokens] = True
    text = (~special).nonzero()[0]

    tokens = np.full(n, vocabulary.sep, np.int64)
    tokens[first_tokens] = vocabulary.cls
    tokens[text] = np.concatenate([segment.document.tokens[segment.start : segment.end] for segment in segments])
    flags = np.zeros(n, np.uint8)
    flags[text] = np.concatenate([segment.document.flags[segment.start : segment.end] for segment in segments])
    count = np.zeros(n, np.int64)
    count[text] = np.concatenate([segment.document.document_count[segment.start : segment.end] for segment in segments])
    which, documents, document_lengths = _number_documents(arranged)
    document = np.full(n, -1, np.int64)
    document[text] = np.repeat(which, lengths)
    segment_type = np.repeat(numbers, runs)
    offsets = (ends - 1 - np.array(lengths)).tolist()  # the first token of each segment
    spans = _spans(segments, offsets)
    most = max(numbers) + 1
    whole = TokenSequence(tokens, flags, count, document, segment_type, spans, most, document_lengths)
    return Block(whole, np.append(first_tokens, n), documents, arranged)


def label_block(
    block: Block, token_tasks: Sequence[TokenTask], rngs: Sequence[Generator]
) -> tuple[Array, dict[str, Labels]]:
    """Let every task label every sequence; return the inputs (n,) and each task's labels, positions in the block.

    As in `instances.build`, the task that changes the input goes last, and others do not score what it replaced.
    `rngs`: the generator of each sequence.
    """
    changing = changing_task(token_tasks)
    labels = {task.name: _label(task, block, rngs) for task in token_tasks if task is not changing}
    inputs = block.whole.tokens
    if changing is not None:
        made = _label(changing, block, rngs)
        if made.inputs is not None:
            inputs, labels = made.inputs, still_seen(labels, made.inputs == block.whole.tokens)
        labels[changing.name] = made
    return inputs, labels


def _label(task: TokenTask, block: Block, rngs: Sequence[Generator]) -> Labels:
    if _labels_blocks(type(task)):
        try:
            made = task.label_block(block, rngs)
        except Exception as error:
            where = block.arranged[0].segments[0].document.name
            raise TaskError(f"task {task.name!r} failed on documents from {where!r} on: {error!r}") from error
        check_labels(task, block.whole, made, block.arranged[0])
        return made
    alone = []
    for number, (rng, arranged) in enumerate(zip(rngs, block.arranged, strict=True)):
        sequence = block.sequence(number)
        one = label_sequence(task, sequence, rng, arranged)
        alone.append(replace(one, inputs=sequence.tokens) if task.changes_input and one.inputs is None else one)
    starts = block.starts[:-1].tolist()
    return Labels(
        np.concatenate([one.positions + start for one, start in zip(alone, starts, strict=True)]),
        np.concatenate([one.targets for one in alone]),
        np.concatenate([one.inputs for one in alone if one.inputs is not None]) if task.changes_input else None,
    )


def _labels_blocks(kind: type[TokenTask]) -> bool:
    """Whether `label_block` says the same as `label`: a subclass that overrides `label` alone takes it out of use."""
    owner = next(each for each in kind.__mro__ if "label" in vars(each) or "label_block" in vars(each))
    return owner is not TokenTask and "label_block" in vars(owner)


def _number_documents(arranged: Sequence[Arranged]) -> tuple[list[int], list[int], Array]:
    """Number of the document of every segment, of the first document of every sequence, and tokens of each document."""
    which: list[int] = []
    starts, lengths = [0], list[int]()
    for one in arranged:
        shown: dict[int, int] = {}  # by identity: two documents may be equal
        for segment in one.segments:
            number = shown.get(id(segment.document))
            if number is None:
                number = shown[id(segment.document)] = len(lengths)
                lengths.append(len(segment.document.tokens))
            which.append(number)
        starts.append(len(lengths))
    return which, starts, np.array(lengths, np.int64)


def _spans(segments: Sequence[Segment], offsets: Sequence[int]) -> dict[str, Array]:
    """Spans that lie whole in a segment, kind → (k, 2), as positions in the block; `offsets`: where segments begin."""
    edges: dict[int, list[tuple[str, Array, list[int], list[int]]]] = {}  # by document: a walk stays in one for long
    found: dict[str, tuple[list[Array], list[int], list[int]]] = {}
    for segment, offset in zip(segments, offsets, strict=True):
        document, start, end = segment.document, segment.start, segment.end
        if (kinds := edges.get(id(document))) is None:
            kinds = [(kind, runs, *runs.T.tolist()) for kind, runs in document.spans.items()]
            edges[id(document)] = kinds
        for kind, runs, begins, ends in kinds:
            first, last = bisect_left(begins, start), bisect_right(ends, end)
            if last > first:
                parts, shifts, counts = found.setdefault(kind, ([], [], []))
                parts.append(runs[first:last])
                shifts.append(offset - start)
                counts.append(last - first)
    return {
        kind: np.concatenate(parts) + np.repeat(shifts, counts)[:, None]
        for kind, (parts, shifts, counts) in found.items()
    }
