"""Blocks: many arranged instances laid out and labelled at once, with the result of `instances.build` for each.

Calls on arrays of 50 tokens cost as much as on arrays of 5,000, so short sequences are worked on together.

n tokens of all sequences · s sequences · k spans
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
    """Sequences end to end: sequence i is tokens `starts[i] : starts[i + 1]` of `whole`.

    `whole` is one `TokenSequence` of them all: its `document` counts on from sequence to sequence, so that no two share
    one; `segments` is the largest number in one. `starts` (s + 1,) int64; `arranged`: what was laid out.
    """

    sequence: TokenSequence
    starts: Array
    arrangements: Sequence[Arrangement] = ()

    def __len__(self) -> int:
        return len(self.starts) - 1


def lay_out_block(arranged: Sequence[Arrangement], vocabulary: Vocabulary) -> Block:
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
    shown: dict[tuple[int, int], int] = {}  # of a sequence, by identity: two documents may be equal
    keys = [(which, id(segment.document)) for which, one in enumerate(arranged) for segment in one.segments]
    document = np.full(n, -1, np.int64)
    document[text] = np.repeat([shown.setdefault(key, len(shown)) for key in keys], lengths)
    sizes = {key: len(segment.document.tokens) for key, segment in zip(keys, segments, strict=True)}
    document_lengths = np.array(list(sizes.values()), np.int64)
    segment_type = np.repeat(numbers, runs)
    spans = _spans(segments, ends - 1 - np.array(lengths))  # the first token of each segment
    most = max(numbers) + 1
    whole = TokenSequence(tokens, flags, count, document, segment_type, spans, most, document_lengths)
    return Block(whole, np.append(first_tokens, n), arranged)


def label_block(
    block: Block, token_tasks: Sequence[TokenTask], rngs: Sequence[Generator]
) -> tuple[Array, dict[str, Labels]]:
    """Let every task label every sequence; return the inputs (n,) and each task's labels, positions in the block.

    The task that changes the input goes last. Token tasks do not score tokens that it replaced: their own label would
    be about a token nobody sees. `rngs`: the generator of each sequence. Raises `TaskError` where a task breaks its
    contract, and where two change the input.
    """
    changing = _changing_task(token_tasks)
    labels = {task.name: _label(task, block, rngs) for task in token_tasks if task is not changing}
    inputs = block.sequence.tokens
    if changing is not None:
        made = _label(changing, block, rngs)
        if made.inputs is not None:
            inputs, kept = made.inputs, made.inputs == block.sequence.tokens
            for name, each in labels.items():
                seen = kept[each.positions]
                labels[name] = Labels(each.positions[seen], each.targets[seen])
        labels[changing.name] = made
    return inputs, labels


def _changing_task(token_tasks: Sequence[TokenTask]) -> TokenTask | None:
    """Return the task that changes the input, None without one. Raises `TaskError` where there are several."""
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
        made = _label(task, lay_out_block([one], task.vocabulary), [rng])
        positions.append(made.positions + start)
        targets.append(made.targets)
        if inputs is not None and made.inputs is not None:
            inputs[start : start + len(made.inputs)] = made.inputs
    return Labels(np.concatenate(positions), np.concatenate(targets), inputs)


def _checked(task: TokenTask, block: Block, label: Callable[[], Labels]) -> Labels:
    """What `label` returns; raises `TaskError`, naming task and document, where it breaks its contract."""
    where = block.arrangements[0].segments[0].document.name
    try:
        made = label()
    except USER_CODE_ERRORS as error:
        on = f"document {where!r}" if len(block) == 1 else f"documents from {where!r} on"
        raise TaskError(f"task {task.name!r} failed on {on}: {error!r}{user_code_location(error)}") from error
    if (problem := _problem(task, block.sequence, made)) is not None:
        raise TaskError(f"task {task.name!r}, document {where!r}: {problem}.")
    return made


def _labels_blocks(kind: type[TokenTask]) -> bool:
    """Whether `label_block` says the same as `label`: a subclass that overrides `label` alone takes it out of use."""
    owner = next(each for each in kind.__mro__ if "label" in vars(each) or "label_block" in vars(each))
    return owner is not TokenTask and "label_block" in vars(owner)


def _spans(segments: Sequence[Segment], offsets: Array) -> dict[str, Array]:
    """Spans that lie whole in a segment, kind → (k, 2), as positions in the block; `offsets`: where segments begin."""
    starts, ends = (np.array([getattr(segment, edge) for segment in segments]) for edge in ("start", "end"))
    of_document: dict[int, list[int]] = {}  # by identity; a walk stays in one document for long
    for number, segment in enumerate(segments):
        of_document.setdefault(id(segment.document), []).append(number)
    found: dict[str, list[Array]] = {}
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
                found.setdefault(kind, []).extend(parts)
    joined = {kind: np.concatenate(parts) for kind, parts in found.items()}
    return {kind: runs[runs[:, 0].argsort()] for kind, runs in joined.items()}


def _problem(task: TokenTask, sequence: TokenSequence, made: object) -> str | None:
    if not isinstance(made, Labels):
        return f"returned {describe_type(made)}, not Labels; Labels without positions score nothing"
    positions, targets, inputs, length = made.positions, made.targets, made.inputs, len(sequence.tokens)
    for name, array in (("positions", positions), ("targets", targets), ("inputs", inputs)):
        if array is not None and not _whole_numbers(array):
            return f"{name} are {describe_type(array)}, not one row of whole numbers"
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


def describe_type(value: object) -> str:
    """What a value is, for a message: 'a str', 'an array of float64 with shape (3,)'."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} with shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"
