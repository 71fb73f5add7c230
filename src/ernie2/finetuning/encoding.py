"""Encode examples as token sequences with scored positions, and build packs of them.

n tokens of a sequence · P scored positions

A sequence is [CLS] text [SEP], or [CLS] text [SEP] pair [SEP] with segment 1 from the pair on. Long texts are
truncated, pairs longest first. Long contexts of questions and long tagged texts are split into several sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ernie2.batches.batch import PackedBatch, Targets, pack_sequences
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
"""Key of the targets of a pack."""


@dataclass(frozen=True, slots=True)
class EncodedSequence:
    """One sequence: `tokens` and `segments` (n,) int32, scored `positions` (P,) int32.

    `labels`: (P,) int64 classes; (P,) float32 numbers; (P, C) float32 for several labels; (P, 2) int64 first and last
    token of an answer, both 0 if it is not in this sequence; None without labels. `example`: index of the example.
    Spans: the sequence shows `window` of the context, from token `context` on.
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
    """The sequences of a split, with notes for the user.

    `offsets`: for spans, by example, (tokens of the context, 2) start and end of each token in characters.
    `cut`: number of examples whose text, or question, was truncated. `tokens`: number of tokens without [CLS] and
    [SEP]; `unknown` of them are [UNK].
    """

    sequences: tuple[EncodedSequence, ...]
    notes: tuple[str, ...] = ()
    offsets: tuple[Array, ...] = ()
    cut: int = 0
    tokens: int = 0
    unknown: int = 0


class ExampleEncoder:
    """Encode examples of one kind of task as sequences.

    `segment_types`: rows of the segment embedding; with one row, all segments are 0.
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
            raise ConfigError(f"max_length={settings.max_length} leaves no room for text. Increase it.")
        self.tokenizer, self.head, self.settings = tokenizer, head, settings
        self.ids = {name: number for number, name in enumerate(labels)}
        self.second = min(1, segment_types - 1)

    def encode(self, examples: Sequence[Example], *, labelled: bool) -> EncodedData:
        """Return the sequences of `examples` in order.

        `labelled`: add labels, and skip questions without an answer in their context. The notes count skipped
        questions and report a high share of [UNK].
        """
        encoded = self._encode(examples, labelled=labelled)
        special = (self.tokenizer.cls_id, self.tokenizer.sep_id)
        ids = np.concatenate([np.zeros(0, np.int32), *(one.tokens for one in encoded.sequences)])
        tokens = int(np.isin(ids, special, invert=True).sum())
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
        sequences, cut = [], 0
        for number, (example, first, second) in enumerate(zip(examples, firsts, seconds, strict=True)):
            limit = self.settings.max_length - (2 if second is None else SPECIAL_TOKENS)
            length, pair_length = longest_first(len(first), 0 if second is None else len(second), limit)
            cut += length < len(first) or (second is not None and pair_length < len(second))
            labels = self._label_array(example) if labelled else None
            tokens, segments = self._sequence(first[:length], None if second is None else second[:pair_length])
            sequences.append(EncodedSequence(tokens, segments, np.zeros(1, np.int32), labels, number))
        note = f"{cut:,} of {len(sequences):,} texts are truncated to {self.settings.max_length} tokens"
        return EncodedData(tuple(sequences), (note,) if cut else (), cut=cut)

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
        """Score each word at its first subword; a word without subwords becomes [UNK].

        A text of more subwords than fit becomes several sequences, split between words.
        """
        distinct = list(dict.fromkeys(token for example in examples for token in example.tokens))
        unknown = np.array([self.tokenizer.unk_id], np.int32)
        limit = self.settings.max_length - 2
        subwords = {
            token: ids[:limit] if len(ids) else unknown
            for token, ids in zip(distinct, self._token_ids(distinct), strict=True)
        }
        sequences: list[EncodedSequence] = []
        for number, example in enumerate(examples):
            words = [subwords[token] for token in example.tokens]
            tags = example.label if labelled else None
            assert tags is None or isinstance(tags, tuple)
            for start, end in split_within([len(word) for word in words], limit):
                counts = [len(word) for word in words[start:end]]
                positions = 1 + np.cumsum([0, *counts[:-1]])
                labels = None if tags is None else np.array([self.ids[str(tag)] for tag in tags[start:end]], np.int64)
                tokens, segments = self._sequence(np.concatenate(words[start:end]), None)
                sequences.append(EncodedSequence(tokens, segments, positions.astype(np.int32), labels, number))
        extra = len(sequences) - len({one.example for one in sequences})
        note = f"texts of more than {limit} tokens are split, into {extra:,} extra sequences"
        return EncodedData(tuple(sequences), (note,) if extra else ())

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
        sequences: list[EncodedSequence] = []
        offsets, skipped = [], 0
        for number, (example, query) in enumerate(zip(examples, queries, strict=True)):
            context, places = contexts[example.pair or ""]
            offsets.append(places)
            span = _answer_span(example, places) if labelled else None
            if labelled and span is None and example.label != ():  # an unanswerable question is trained towards [CLS]
                skipped += 1
                continue
            question = query[: settings.max_query_length]
            sizes = {
                "max_length": settings.max_length,
                "stride": settings.stride,
                "max_query_length": settings.max_query_length,
            }
            begin = len(question) + 2
            for window in context_windows(len(context), len(query), **sizes):
                tokens, segments = self._sequence(question, context[window.start : window.start + window.length])
                labels = None
                if labelled:
                    target = window_target(window, span)
                    first_last = (0, 0) if target is None else (target[0] + begin, target[1] + begin)
                    labels = np.array([first_last], np.int64)
                cls = np.zeros(1, np.int32)
                sequences.append(EncodedSequence(tokens, segments, cls, labels, number, begin, window))
        cut = sum(len(query) > settings.max_query_length for query in queries)
        notes = {
            f"{skipped:,} of {len(examples):,} questions are skipped: no answer occurs in the context": skipped,
            f"{cut:,} of {len(examples):,} questions are truncated to {settings.max_query_length} tokens": cut,
        }
        return EncodedData(tuple(sequences), tuple(note for note, count in notes.items() if count), tuple(offsets), cut)

    def _token_ids(self, texts: Sequence[str]) -> list[Array]:
        """Return ids (n_i,) int32 of each text, without special tokens."""
        ids: list[Array] = []
        for first in range(0, len(texts), _BATCH_TEXTS):
            encodings = self.tokenizer.encode_batch(texts[first : first + _BATCH_TEXTS])
            ids += [np.array(encoding.ids, np.int32) for encoding in encodings]
        return ids

    def _sequence(self, first: Array, second: Array | None) -> tuple[Array, Array]:
        cls, sep = np.array([self.tokenizer.cls_id]), np.array([self.tokenizer.sep_id])
        parts = [cls, first, sep] if second is None else [cls, first, sep, second, sep]
        tokens = np.concatenate(parts).astype(np.int32)
        segments = np.zeros(len(tokens), np.int32)
        if second is not None:
            segments[len(first) + 2 :] = self.second
        return tokens, segments


def split_within(counts: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Split `counts` into the longest consecutive ranges (start, end) whose sums are at most `limit`.

    [3, 3, 3] within 6 -> [(0, 2), (2, 3)]. A count above `limit` gets a range with only itself.
    """
    ranges, start, total = [], 0, 0
    for i, count in enumerate(counts):
        if total + count > limit and i > start:
            ranges.append((start, i))
            start, total = i, 0
        total += count
    return [*ranges, (start, len(counts))] if len(counts) else []


def build_packs(
    sequences: Sequence[EncodedSequence], settings: FineTuningSettings, task_id: int, pad: int
) -> list[PackedBatch]:
    """Pack `sequences` in order, at most `settings.pack_tokens` tokens and at least one sequence per pack."""
    ranges = split_within([len(one.tokens) for one in sequences], settings.pack_tokens)
    return [_pack(sequences[start:end], task_id, pad) for start, end in ranges]


def _pack(sequences: Sequence[EncodedSequence], task_id: int, pad: int) -> PackedBatch:
    lengths = [len(one.tokens) for one in sequences]
    starts = np.cumsum([0, *lengths])
    positions = np.concatenate([one.positions + start for one, start in zip(sequences, starts, strict=False)])
    labels = [one.labels for one in sequences if one.labels is not None]
    pack_labels = np.concatenate(labels) if labels else np.zeros(len(positions), np.int64)
    return pack_sequences(
        [one.tokens for one in sequences],
        [one.segments for one in sequences],
        [task_id] * len(sequences),
        {TARGET_NAME: Targets(positions.astype(np.int32), pack_labels, len(positions))},
        size=sum(lengths),
        longest=max(lengths),
        pad=pad,
    )


def _answer_span(example: Example, offsets: Array) -> tuple[int, int] | None:
    """Return (first, last) token of the first accepted answer that is in the context, else None."""
    for answer in example.label if isinstance(example.label, tuple) else ():
        if isinstance(answer, Answer) and answer.start >= 0 and answer.text:
            span = token_span(offsets, answer.start, answer.start + len(answer.text))
            if span is not None:
                return span
    return None
