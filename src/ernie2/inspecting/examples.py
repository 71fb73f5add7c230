"""Examples: sample instances from many places of the corpora, and write them as text with their labels."""

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
"""Places of a corpus from which instances are sampled."""
MAX_SEARCHED = 6_000
"""Maximum number of instances searched."""
_NO_SPACE_BEFORE = set(".,;:!?)]}%'’”…，。；：！？、）》」")
_NO_SPACE_AFTER = set("([{$‘“（《「")


def collect_instances(
    task: Task,
    feed: Mapping[str, Feed],
    vocabulary: Vocabulary,
    sequence_tokens: int,
    most: int,
    seed: int,
    is_wanted: Callable[[Instance], bool] | None = None,
) -> list[Instance]:
    """Return at most `most` instances for which `is_wanted` is true, sampled evenly in one pass over the documents."""
    caps = Caps.of(sequence_tokens, sequence_tokens, [task])
    count = max(1, min(most, START_POINTS, *(corpus.num_documents("train") for corpus in feed[task.name].corpora)))
    streams = DataStreams(feed, [task], vocabulary, caps, {task.name: 0}, seed=seed, count=count)
    instances: list[Instance] = []
    for number in range(count):
        cursor: Cursor | None = None
        searched = 0
        while len(instances) < most * (number + 1) // count and searched < MAX_SEARCHED // count:
            instance, cursor, _ = streams.instance(number, cursor, task.name, (task.name,))
            searched += 1
            if is_wanted is None or is_wanted(instance):
                instances.append(instance)
            if streams.epoch(task.name, {task.name: cursor}):
                break
    return instances


def instance_filter(task: Task, what: str) -> Callable[[Instance], bool] | None:
    """Return a predicate: does an instance of `task` contain `what`, a class or kind of spans? None if it is neither.

    If the task masks tokens, a span counts only if all its tokens are masked.
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
        masked = np.zeros(len(instance) + 1, np.int64)
        masked[1:][instance.labels[task.name].positions] = 1
        before = masked.cumsum()  # masked tokens before each position
        return bool((before[runs[:, 1]] - before[runs[:, 0]] == runs[:, 1] - runs[:, 0]).any())

    return contains


def write_example(task: Task, instance: Instance, tokenizer: SubwordTokenizer) -> str:
    """Return the instance as text: class and segments for a sentence task, tokens with labels for a token task."""
    labels = instance.labels[task.name]
    if isinstance(task, SentenceTask):
        ends = np.flatnonzero(instance.sequence.document < 0)  # [CLS], then a [SEP] after each segment
        runs = zip(ends[:-1] + 1, ends[1:], strict=True)
        texts = (_join(_tokens(instance, range(a, b), tokenizer)) for a, b in runs)
        segments = "\n".join(f"({number}) {text}" for number, text in enumerate(texts, 1))
        return f"label {(task.labels or ())[int(labels.targets[0])]}\n{segments}"
    targets = dict(zip(labels.positions.tolist(), labels.targets.tolist(), strict=True))
    every_position = range(len(instance.sequence.tokens))
    if task.labels is None:
        return _join(_hidden(instance, targets, tokenizer))
    return _join(
        _tokens(instance, every_position, tokenizer, lambda at, text: task.format_token(text, targets[at]), targets)
    )


Chunk = tuple[str, bool]
"""Text of a token, and whether it continues the word before it."""


def _tokens(
    instance: Instance,
    positions: range,
    tokenizer: SubwordTokenizer,
    format_scored: Callable[[int, str], str] | None = None,
    scored: Mapping[int, int] | None = None,
) -> Iterator[Chunk]:
    sequence = instance.sequence
    for at in positions:
        if sequence.document[at] >= 0:
            text, continues = _text(int(sequence.tokens[at]), tokenizer)
            yield (format_scored(at, text) if format_scored and at in (scored or ()) else text), continues


def _hidden(instance: Instance, targets: Mapping[int, int], tokenizer: SubwordTokenizer) -> Iterator[Chunk]:
    """Yield all tokens, with the masked tokens of a unit in one pair of brackets."""
    starts: NDArray[Any] = unit_starts(instance.sequence, SPAN_KINDS)
    unit: list[Chunk] = []
    for at, (token, seen) in enumerate(zip(instance.sequence.tokens.tolist(), instance.inputs.tolist(), strict=True)):
        if unit and (at not in targets or starts[at]):
            yield f"⟦{_join(unit)}⟧", unit[0][1]
            unit = []
        text, continues = _text(token, tokenizer)
        if at in targets:
            change = "" if seen == tokenizer.mask_id else "≡" if seen == token else f"→{_text(seen, tokenizer)[0]}"
            unit.append((text + change, continues))
        elif instance.sequence.document[at] >= 0:
            yield text, continues


def _text(token: int, tokenizer: SubwordTokenizer) -> Chunk:
    text, continues = tokenizer.tokens[token], bool(tokenizer.is_continuation[token])
    return (text.removeprefix("##") if continues else text), continues


def _join(chunks: Iterable[Chunk]) -> str:
    """Join tokens as readable text: no space inside words, between Chinese characters, or around punctuation."""
    text = ""
    for chunk, continues in chunks:
        first = chunk.lstrip("⟦")[:1]
        last = text.rstrip("⟧⁺⁻")[-1:]
        together = (
            continues or first in _NO_SPACE_BEFORE or last in _NO_SPACE_AFTER or (_is_wide(first) and _is_wide(last))
        )
        text += chunk if together or not text else f" {chunk}"
    return text


def _is_wide(character: str) -> bool:
    return character >= "⺀"
