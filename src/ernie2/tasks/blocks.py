"""Blocks of sequences: layout and labels of many arranged instances at once, equal to `build_instance` for each.

A numpy call on 50 tokens takes as long as one on 5,000, so short sequences are processed together.

Shapes: n tokens of all sequences, s sequences, k spans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ernie2.errors import USER_CODE_ERRORS, TaskError, user_code_location
from ernie2.tasks.base import Arrangement, Array, Labels, Segment, TokenSequence, TokenTask, Vocabulary


@dataclass(frozen=True, slots=True)
class Block:
    """Sequences end to end: sequence i is tokens `starts[i] : starts[i + 1]` of `sequence`.

    `sequence` joins them: document indices are unique across sequences, and `segment_count` is the largest of all.
    `starts` is (s + 1,) int64.
    """

    sequence: TokenSequence
    starts: Array
    arrangements: Sequence[Arrangement] = ()

    def __len__(self) -> int:
        return len(self.starts) - 1


def lay_out_block(arrangements: Sequence[Arrangement], vocabulary: Vocabulary) -> Block:
    """Lay instances out end to end, each as [CLS] segment [SEP] segment [SEP] …"""
    segments = [segment for one in arrangements for segment in one.segments]
    numbers = [number for one in arrangements for number in range(len(one.segments))]
    lengths = [segment.end - segment.start for segment in segments]
    is_first = np.array([number == 0 for number in numbers])  # preceded by [CLS]
    sizes = np.array(lengths) + 1 + is_first  # tokens of each segment, special tokens included
    ends = sizes.cumsum()
    n = int(ends[-1])
    special = np.zeros(n, bool)
    special[ends - 1] = True
    first_tokens = (ends - sizes)[is_first]
    special[first_tokens] = True
    text = (~special).nonzero()[0]

    tokens = np.full(n, vocabulary.sep, np.int64)
    tokens[first_tokens] = vocabulary.cls
    tokens[text] = np.concatenate([segment.document.tokens[segment.start : segment.end] for segment in segments])
    flags = np.zeros(n, np.uint8)
    flags[text] = np.concatenate([segment.document.flags[segment.start : segment.end] for segment in segments])
    count = np.zeros(n, np.int64)
    count[text] = np.concatenate([segment.document.document_count[segment.start : segment.end] for segment in segments])
    indices: dict[tuple[int, int], int] = {}  # by sequence and identity: two documents may be equal
    keys = [(which, id(segment.document)) for which, one in enumerate(arrangements) for segment in one.segments]
    document = np.full(n, -1, np.int64)
    document[text] = np.repeat([indices.setdefault(key, len(indices)) for key in keys], lengths)
    document_sizes = {key: len(segment.document.tokens) for key, segment in zip(keys, segments, strict=True)}
    document_lengths = np.array(list(document_sizes.values()), np.int64)
    segment_type = np.repeat(numbers, sizes)
    spans = _spans(segments, ends - 1 - np.array(lengths))  # the first token of each segment
    segment_count = max(numbers) + 1
    sequence = TokenSequence(tokens, flags, count, document, segment_type, spans, segment_count, document_lengths)
    return Block(sequence, np.append(first_tokens, n), arrangements)


def label_block(
    block: Block, token_tasks: Sequence[TokenTask], rngs: Sequence[Generator]
) -> tuple[Array, dict[str, Labels]]:
    """Label every sequence with every task; return the inputs (n,) and each task's labels, as positions in the block.

    The task that changes the input goes last. Other tasks do not score the tokens it replaced, because the encoder does
    not see them. `rngs`: one generator per sequence. Raises `TaskError` if a task returns invalid labels, or if two
    tasks change the input.
    """
    changing = _changing_task(token_tasks)
    labels = {task.name: _label(task, block, rngs) for task in token_tasks if task is not changing}
    inputs = block.sequence.tokens
    if changing is not None:
        changed = _label(changing, block, rngs)
        if changed.inputs is not None:
            inputs, unchanged = changed.inputs, changed.inputs == block.sequence.tokens
            for name, each in labels.items():
                scored = unchanged[each.positions]
                labels[name] = Labels(each.positions[scored], each.targets[scored])
        labels[changing.name] = changed
    return inputs, labels


def _changing_task(token_tasks: Sequence[TokenTask]) -> TokenTask | None:
    """Return the task that changes the input, or None. Raises `TaskError` if there are several."""
    changing = [task for task in token_tasks if task.changes_input]
    if len(changing) > 1:
        names = " and ".join(repr(task.name) for task in changing)
        raise TaskError(
            f"tasks {names} all change the input, so they cannot label one instance; leave all but one out."
        )
    return changing[0] if changing else None


def _label(task: TokenTask, block: Block, rngs: Sequence[Generator]) -> Labels:
    if len(block) == 1:
        return _checked(task, block, lambda: task.label(block.sequence, rngs[0]))
    if _labels_blocks(type(task)):
        return _checked(task, block, lambda: task.label_block(block, rngs))
    inputs = block.sequence.tokens.copy() if task.changes_input else None
    positions, targets = [], []
    for start, one, rng in zip(block.starts.tolist(), block.arrangements, rngs, strict=False):
        labels = _label(task, lay_out_block([one], task.vocabulary), [rng])
        positions.append(labels.positions + start)
        targets.append(labels.targets)
        if inputs is not None and labels.inputs is not None:
            inputs[start : start + len(labels.inputs)] = labels.inputs
    return Labels(np.concatenate(positions), np.concatenate(targets), inputs)


def _checked(task: TokenTask, block: Block, label: Callable[[], Labels]) -> Labels:
    """Return the result of `label`. Raises `TaskError` with task and document if it fails or the result is invalid."""
    document = block.arrangements[0].segments[0].document.name
    try:
        labels = label()
    except USER_CODE_ERRORS as error:
        on = f"document {document!r}" if len(block) == 1 else f"documents from {document!r} on"
        raise TaskError(f"task {task.name!r} failed on {on}: {error!r}{user_code_location(error)}") from error
    if (problem := _problem(task, block.sequence, labels)) is not None:
        raise TaskError(f"task {task.name!r}, document {document!r}: {problem}.")
    return labels


def _labels_blocks(kind: type[TokenTask]) -> bool:
    """Return whether `label_block` matches `label`: not if a subclass overrides only `label`."""
    owner = next(each for each in kind.__mro__ if "label" in vars(each) or "label_block" in vars(each))
    return owner is not TokenTask and "label_block" in vars(owner)


def _spans(segments: Sequence[Segment], offsets: Array) -> dict[str, Array]:
    """Return spans inside a segment, kind → (k, 2) positions in the block; `offsets`: where segments begin."""
    starts, ends = (np.array([getattr(segment, edge) for segment in segments]) for edge in ("start", "end"))
    of_document: dict[int, list[int]] = {}  # by identity; consecutive segments often share a document
    for number, segment in enumerate(segments):
        of_document.setdefault(id(segment.document), []).append(number)
    by_kind: dict[str, list[Array]] = {}
    for numbers in of_document.values():
        shifts = (offsets - starts)[numbers].tolist()
        for kind, runs in segments[numbers[0]].document.spans.items():
            firsts = runs[:, 0].searchsorted(starts[numbers]).tolist()
            lasts = runs[:, 1].searchsorted(ends[numbers], side="right").tolist()
            parts = [
                runs[first:last] + shift
                for first, last, shift in zip(firsts, lasts, shifts, strict=True)
                if last > first
            ]
            if parts:
                by_kind.setdefault(kind, []).extend(parts)
    joined = {kind: np.concatenate(parts) for kind, parts in by_kind.items()}
    return {kind: runs[runs[:, 0].argsort()] for kind, runs in joined.items()}


def _problem(task: TokenTask, sequence: TokenSequence, labels: object) -> str | None:
    if not isinstance(labels, Labels):
        return f"returned {describe_type(labels)}, not Labels; Labels without positions score nothing"
    positions, targets, inputs, length = labels.positions, labels.targets, labels.inputs, len(sequence.tokens)
    for name, array in (("positions", positions), ("targets", targets), ("inputs", inputs)):
        if array is not None and not _is_integer_row(array):
            return f"{name} are {describe_type(array)}, not one row of whole numbers"
    if len(positions) != len(targets):
        return f"{len(positions)} positions but {len(targets)} targets"
    if inputs is not None and not task.changes_input:
        return "returned inputs, but its changes_input is False"
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


def _is_integer_row(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "iu"


def describe_type(value: object) -> str:
    """Return the type of a value for a message: 'a str', 'an array of float64 with shape (3,)'."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"
