"""Instances to look at, a few each from many places of the corpora, and as text in which the labels are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.packing import Caps
from ernie2.batches.streams import Cursor, DataStreams, Feed
from ernie2.shards.store import SPAN_KINDS
from ernie2.shards.tokenizer import SubwordTokenizer
from ernie2.tasks.base import SentenceTask, Task, Vocabulary
from ernie2.tasks.instances import Instance
from ernie2.tasks.knowledge_masking import unit_starts

START_POINTS = 30
"""Instances are taken from this many places of a corpus."""
MAX_SEARCHED = 6_000
"""Most instances that are searched for those that contain something."""
_NO_SPACE_BEFORE = set(".,;:!?)]}%'’”…，。；：！？、）》」")
_NO_SPACE_AFTER = set("([{$‘“（《「")


def collect_instances(
    task: Task,
    feed: Mapping[str, Feed],
    vocabulary: Vocabulary,
    sequence_tokens: int,
    most: int,
    seed: int,
    wanted: Callable[[Instance], bool] | None = None,
) -> list[Instance]:
    """At most `most` instances, those `wanted`, from one pass over the documents, a few each from many of them."""
    caps = Caps.of(sequence_tokens, sequence_tokens, [task])
    count = max(1, min(most, START_POINTS, *(corpus.num_documents("train") for corpus in feed[task.name].corpora)))
    streams = DataStreams(feed, [task], vocabulary, caps, {task.name: 0}, seed=seed, count=count)
    found: list[Instance] = []
    for number in range(count):
        cursor: Cursor | None = None
        searched = 0
        while len(found) < most * (number + 1) // count and searched < MAX_SEARCHED // count:
            instance, cursor, _ = streams.instance(number, cursor, task.name, (task.name,))
            searched += 1
            if wanted is None or wanted(instance):
                found.append(instance)
            if streams.epoch(task.name, {task.name: cursor}):
                break
    return found


def instance_filter(task: Task, what: str) -> Callable[[Instance], bool] | None:
    """Whether an instance of `task` contains `what`, a class of the task or a kind of spans; None where it is neither.

    Where the task hides tokens, a span of that kind must be hidden as a whole.
    """
    if task.labels is not None and what in task.labels:
        target = task.labels.index(what)
        return lambda instance: bool((instance.labels[task.name].targets == target).any())
    if what not in SPAN_KINDS:
        return None

    def contains(instance: Instance) -> bool:
        runs = instance.sequence.spans.get(what, np.zeros((0, 2), np.int64))
        if not getattr(task, "changes_input", False):
            return len(runs) > 0
        hidden = np.zeros(len(instance) + 1, np.int64)
        hidden[1:][instance.labels[task.name].positions] = 1
        before = hidden.cumsum()  # hidden tokens before each position
        return bool((before[runs[:, 1]] - before[runs[:, 0]] == runs[:, 1] - runs[:, 0]).any())

    return contains


def write_example(task: Task, instance: Instance, pieces: SubwordTokenizer) -> str:
    """The instance as text: of a sentence task the class and the segments, of a token task the text with its labels."""
    labels = instance.labels[task.name]
    if isinstance(task, SentenceTask):
        ends = np.flatnonzero(instance.sequence.document < 0)  # [CLS], then a [SEP] after each segment
        runs = zip(ends[:-1] + 1, ends[1:], strict=True)
        texts = (_join(_pieces(instance, range(a, b), pieces)) for a, b in runs)
        segments = "\n".join(f"({number}) {text}" for number, text in enumerate(texts, 1))
        return f"label {(task.labels or ())[int(labels.targets[0])]}\n{segments}"
    targets = dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True))
    everything = range(len(instance.sequence.tokens))
    if task.labels is None:
        return _join(_hidden(instance, targets, pieces))
    return _join(_pieces(instance, everything, pieces, lambda at, text: task.format_token(text, targets[at]), targets))


Chunk = tuple[str, bool]
"""A piece of text, and whether it continues the word before it."""


def _pieces(
    instance: Instance,
    positions: range,
    pieces: SubwordTokenizer,
    show: Callable[[int, str], str] | None = None,
    scored: Mapping[int, int] | None = None,
) -> Iterator[Chunk]:
    sequence = instance.sequence
    for at in positions:
        if sequence.document[at] >= 0:
            text, continues = _text(int(sequence.tokens[at]), pieces)
            yield (show(at, text) if show and at in (scored or ()) else text), continues


def _hidden(instance: Instance, targets: Mapping[int, int], pieces: SubwordTokenizer) -> Iterator[Chunk]:
    """Pieces, with the hidden ones of a unit in one pair of brackets."""
    starts: NDArray[Any] = unit_starts(instance.sequence, SPAN_KINDS)
    unit: list[Chunk] = []
    for at, (token, seen) in enumerate(zip(instance.sequence.tokens.tolist(), instance.inputs.tolist(), strict=True)):
        if unit and (at not in targets or starts[at]):
            yield f"⟦{_join(unit)}⟧", unit[0][1]
            unit = []
        text, continues = _text(token, pieces)
        if at in targets:
            fate = "" if seen == pieces.mask_id else "≡" if seen == token else f"→{_text(seen, pieces)[0]}"
            unit.append((text + fate, continues))
        elif instance.sequence.document[at] >= 0:
            yield text, continues


def _text(token: int, pieces: SubwordTokenizer) -> Chunk:
    written, continues = pieces.tokens[token], bool(pieces.is_continuation[token])
    return (written.removeprefix("##") if continues else written), continues


def _join(chunks: Iterable[Chunk]) -> str:
    """Pieces as text a person reads: no space inside words, between Chinese characters, or around punctuation."""
    text = ""
    for chunk, continues in chunks:
        first = chunk.lstrip("⟦")[:1]
        last = text.rstrip("⟧⁺⁻")[-1:]
        together = continues or first in _NO_SPACE_BEFORE or last in _NO_SPACE_AFTER or (_wide(first) and _wide(last))
        text += chunk if together or not text else f" {chunk}"
    return text


def _wide(character: str) -> bool:
    return character >= "⺀"
