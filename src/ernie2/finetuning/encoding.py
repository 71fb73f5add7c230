"""Labelled examples → token sequences with the positions a head scores → packs of sequences laid end to end.

n tokens of a sequence · P scored positions in it

[CLS] text [SEP], or [CLS] text [SEP] pair [SEP] with segment 1 from the pair on. Texts that are too long are cut,
pairs longest first; contexts of questions and tagged texts are shown in several sequences instead, and lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch, Targets, end_to_end
from ernie2.config.finetuning_settings import FineTuningSettings
from ernie2.datasets.examples import Answer, Example, Head
from ernie2.errors import ConfigError
from ernie2.finetuning.spans import SPECIAL_TOKENS, Window, context_windows, token_span, window_target
from ernie2.shards.tokenizer import SubwordTokenizer, token_columns
from ernie2.shards.truncation import longest_first
from ernie2.shards.unknown_tokens import HIGH_SHARE, describe_share

Array = NDArray[Any]

_BATCH_TEXTS = 4096
TARGET_NAME = "finetuning"
"""The name of the one task a pack has targets for."""


@dataclass(frozen=True, slots=True)
class EncodedSequence:
    """One sequence: `tokens` and `segments` (n,) int32, the `positions` (P,) int32 in it that are scored.

    `labels`: (P,) int64 classes, (P,) float32 numbers, (P, C) float32 for several labels, (P, 2) int64 first and last
    token of an answer, both 0 where this sequence does not hold it; None without labels. `example`: number of its
    example. Spans: the context's tokens begin at `context` in the sequence and are those of `window`.
    """

    tokens: Array
    segments: Array
    positions: Array
    labels: Array | None
    example: int
    context: int = 0
    window: Window | None = None


@dataclass(frozen=True)
class EncodedData:
    """The sequences of a split, and notes for users. `offsets`: for spans, by example, (tokens of its context, 2)
    characters at which each begins and ends. `cut`: number of examples with a text, or question, that was cut.
    `tokens`, `unknown`: tokens that stand for text, and how many of them are [UNK]."""

    sequences: tuple[EncodedSequence, ...]
    notes: tuple[str, ...] = ()
    offsets: tuple[Array, ...] = ()
    cut: int = 0
    tokens: int = 0
    unknown: int = 0


class ExampleEncoder:
    """Turns examples of one kind of task into sequences, all with the same tokeniser, labels and lengths.

    `segment_types`: rows of the encoder's segment table; with one row a pair has segment 0 throughout.
    """

    def __init__(
        self,
        tokenizer: SubwordTokenizer,
        head: Head,
        labels: Sequence[str],
        settings: FineTuningSettings,
        segment_types: int = 2,
    ) -> None:
        if settings.max_length <= SPECIAL_TOKENS + 1:
            raise ConfigError(f"max_length={settings.max_length} leaves no room for text; give more.")
        self.tokenizer, self.head, self.settings = tokenizer, head, settings
        self.ids = {name: number for number, name in enumerate(labels)}
        self.second = min(1, segment_types - 1)

    def encode(self, examples: Sequence[Example], *, labelled: bool) -> EncodedData:
        """The sequences of `examples`, in their order; `labelled`: with labels, and without what cannot be learnt from,
        which is counted in the notes, as is a high share of [UNK]."""
        encoded = self._encode(examples, labelled=labelled)
        around = (self.tokenizer.cls_id, self.tokenizer.sep_id)
        ids = np.concatenate([np.zeros(0, np.int32), *(one.tokens for one in encoded.sequences)])
        tokens = int(np.isin(ids, around, invert=True).sum())
        unknown = int((ids == self.tokenizer.unk_id).sum())
        notes = (describe_share(unknown / tokens),) if unknown > HIGH_SHARE * tokens else ()
        return replace(encoded, notes=(*encoded.notes, *notes), tokens=tokens, unknown=unknown)

    def _encode(self, examples: Sequence[Example], *, labelled: bool) -> EncodedData:
        if self.head == "span":
            return self._encode_spans(examples, labelled=labelled)
        if self.head == "tagging":
            return self._encode_tagged(examples, labelled=labelled)
        firsts = self._token_ids([example.text for example in examples])
        if not any(example.pair is not None for example in examples):
            seconds: list[Array | None] = [None] * len(examples)
        else:
            seconds = list(self._token_ids([example.pair or "" for example in examples]))
        made, cut = [], 0
        for number, (example, first, second) in enumerate(zip(examples, firsts, seconds, strict=True)):
            room = self.settings.max_length - (2 if second is None else SPECIAL_TOKENS)
            kept, beside = longest_first(len(first), 0 if second is None else len(second), room)
            cut += kept < len(first) or (second is not None and beside < len(second))
            labels = self._label_array(example) if labelled else None
            tokens, segments = self._sequence(first[:kept], None if second is None else second[:beside])
            made.append(EncodedSequence(tokens, segments, np.zeros(1, np.int32), labels, number))
        told = f"{cut:,} of {len(made):,} texts are longer than {self.settings.max_length} tokens and are cut"
        return EncodedData(tuple(made), (told,) if cut else (), cut=cut)

    def _label_array(self, example: Example) -> Array:
        label = example.label
        if self.head == "regression":
            assert isinstance(label, int | float)
            return np.array([label], np.float32)
        if self.head == "multi_label":
            assert isinstance(label, tuple)
            row = np.zeros((1, len(self.ids)), np.float32)
            row[0, [self.ids[str(name)] for name in label]] = 1.0
            return row
        return np.array([self.ids[str(label)]], np.int64)

    def _encode_tagged(self, examples: Sequence[Example], *, labelled: bool) -> EncodedData:
        """A token of the user is scored at its first piece; one without any piece stands as [UNK]. A text of more
        pieces than fit becomes several sequences, parted between tokens."""
        distinct = list(dict.fromkeys(token for example in examples for token in example.tokens))
        unknown = np.array([self.tokenizer.unk_id], np.int32)
        room = self.settings.max_length - 2
        known = {
            token: pieces[:room] if len(pieces) else unknown
            for token, pieces in zip(distinct, self._token_ids(distinct), strict=True)
        }
        made: list[EncodedSequence] = []
        for number, example in enumerate(examples):
            pieces = [known[token] for token in example.tokens]
            tags = example.label if labelled else None
            assert tags is None or isinstance(tags, tuple)
            for start, end in split_within([len(piece) for piece in pieces], room):
                counts = [len(piece) for piece in pieces[start:end]]
                positions = 1 + np.cumsum([0, *counts[:-1]])
                labels = None if tags is None else np.array([self.ids[str(tag)] for tag in tags[start:end]], np.int64)
                tokens, segments = self._sequence(np.concatenate(pieces[start:end]), None)
                made.append(EncodedSequence(tokens, segments, positions.astype(np.int32), labels, number))
        more = len(made) - len({one.example for one in made})
        told = f"{more:,} sequences more than texts: longer ones than {room} pieces are shown in parts"
        return EncodedData(tuple(made), (told,) if more else ())

    def _encode_spans(self, examples: Sequence[Example], *, labelled: bool) -> EncodedData:
        settings = self.settings
        queries = self._token_ids([example.text for example in examples])
        contexts: dict[str, tuple[Array, Array]] = {}  # many questions share a context
        distinct = list(dict.fromkeys(example.pair or "" for example in examples))
        for first in range(0, len(distinct), _BATCH_TEXTS):
            part = distinct[first : first + _BATCH_TEXTS]
            flat = token_columns(self.tokenizer.encode_batch(part))
            ends = np.cumsum(flat.counts)
            for text, end, count in zip(part, ends, flat.counts, strict=True):
                place = slice(end - count, end)
                contexts[text] = (flat.ids[place], np.stack([flat.starts[place], flat.ends[place]], 1))
        made: list[EncodedSequence] = []
        offsets, lost = [], 0
        for number, (example, query) in enumerate(zip(examples, queries, strict=True)):
            context, places = contexts[example.pair or ""]
            offsets.append(places)
            span = _answer_span(example, places) if labelled else None
            if labelled and span is None and example.label != ():  # an unanswerable question is trained towards [CLS]
                lost += 1
                continue
            asked = query[: settings.max_query]
            sizes = {"max_length": settings.max_length, "stride": settings.stride, "max_query": settings.max_query}
            begin = len(asked) + 2
            for window in context_windows(len(context), len(query), **sizes):
                tokens, segments = self._sequence(asked, context[window.start : window.start + window.length])
                labels = None
                if labelled:
                    target = window_target(window, span)
                    found = (0, 0) if target is None else (target[0] + begin, target[1] + begin)
                    labels = np.array([found], np.int64)
                made.append(EncodedSequence(tokens, segments, np.zeros(1, np.int32), labels, number, begin, window))
        cut = sum(len(query) > settings.max_query for query in queries)
        notes = {
            f"{lost:,} of {len(examples):,} questions are not learnt from: no answer of theirs is in the context": lost,
            f"{cut:,} of {len(examples):,} questions are longer than {settings.max_query} tokens and are cut": cut,
        }
        return EncodedData(tuple(made), tuple(note for note, count in notes.items() if count), tuple(offsets), cut)

    def _token_ids(self, texts: Sequence[str]) -> list[Array]:
        """Ids (n_i,) int32 of each text, without special tokens."""
        made: list[Array] = []
        for first in range(0, len(texts), _BATCH_TEXTS):
            encodings = self.tokenizer.encode_batch(texts[first : first + _BATCH_TEXTS])
            made += [np.array(encoding.ids, np.int32) for encoding in encodings]
        return made

    def _sequence(self, first: Array, second: Array | None) -> tuple[Array, Array]:
        cls, sep = np.array([self.tokenizer.cls_id]), np.array([self.tokenizer.sep_id])
        parts = [cls, first, sep] if second is None else [cls, first, sep, second, sep]
        tokens = np.concatenate(parts).astype(np.int32)
        segments = np.zeros(len(tokens), np.int32)
        if second is not None:
            segments[len(first) + 2 :] = self.second
        return tokens, segments


def split_within(counts: Sequence[int], room: int) -> list[tuple[int, int]]:
    """Runs of neighbours whose counts add up to at most `room`, each as long as it can be; every count fits by itself.

    [3, 3, 3] within 6 -> [(0, 2), (2, 3)].
    """
    runs, start, total = [], 0, 0
    for at, count in enumerate(counts):
        if total + count > room and at > start:
            runs.append((start, at))
            start, total = at, 0
        total += count
    return [*runs, (start, len(counts))] if len(counts) else []


def build_packs(
    sequences: Sequence[EncodedSequence], settings: FineTuningSettings, task_id: int, pad: int
) -> list[PackedBatch]:
    """`sequences` in their order as packs of at most `settings.pack_tokens` tokens; at least one sequence a pack."""
    runs = split_within([len(one.tokens) for one in sequences], settings.pack_tokens)
    return [_pack(sequences[start:end], task_id, pad) for start, end in runs]


def _pack(sequences: Sequence[EncodedSequence], task_id: int, pad: int) -> PackedBatch:
    lengths = [len(one.tokens) for one in sequences]
    starts = np.cumsum([0, *lengths])
    positions = np.concatenate([one.positions + start for one, start in zip(sequences, starts, strict=False)])
    labels = [one.labels for one in sequences if one.labels is not None]
    found = np.concatenate(labels) if labels else np.zeros(len(positions), np.int64)
    return end_to_end(
        [one.tokens for one in sequences],
        [one.segments for one in sequences],
        [task_id] * len(sequences),
        {TARGET_NAME: Targets(positions.astype(np.int32), found, len(positions))},
        room=sum(lengths),
        longest=max(lengths),
        pad=pad,
    )


def _answer_span(example: Example, offsets: Array) -> tuple[int, int] | None:
    """(first, last) token of the first accepted answer that stands in the context."""
    for answer in example.label if isinstance(example.label, tuple) else ():
        if isinstance(answer, Answer) and answer.start >= 0 and answer.text:
            span = token_span(offsets, answer.start, answer.start + len(answer.text))
            if span is not None:
                return span
    return None
